// A spoke: a network with a subnet for nodes, peered with the hub, and a route table that sends
// everything to the gateway. The table is always made; it is attached when isRouted says so.

param location string
param name string
param prefix string
param nodeSubnetPrefix string
param hubName string
param nextHop string
param isRouted bool
param standbyNatGateway bool

resource hub 'Microsoft.Network/virtualNetworks@2024-05-01' existing = {
  name: hubName
}

resource routeTable 'Microsoft.Network/routeTables@2024-05-01' = {
  name: '${name}-to-gateway'
  location: location
  properties: {
    // Else a gateway's BGP routes would win where they are longer.
    disableBgpRoutePropagation: true
    routes: [
      {
        name: 'everything'
        properties: {
          addressPrefix: '0.0.0.0/0'
          nextHopType: 'VirtualAppliance'
          nextHopIpAddress: nextHop
        }
      }
    ]
  }
}

resource standbyAddress 'Microsoft.Network/publicIPAddresses@2024-05-01' = if (standbyNatGateway) {
  name: '${name}-standby'
  location: location
  sku: {
    name: 'Standard'
  }
  properties: {
    publicIPAllocationMethod: 'Static'
    publicIPAddressVersion: 'IPv4'
  }
}

resource standby 'Microsoft.Network/natGateways@2024-05-01' = if (standbyNatGateway) {
  name: '${name}-standby'
  location: location
  sku: {
    name: 'Standard'
  }
  properties: {
    idleTimeoutInMinutes: 120
    publicIpAddresses: [
      {
        id: standbyAddress.id
      }
    ]
  }
}

resource network 'Microsoft.Network/virtualNetworks@2024-05-01' = {
  name: name
  location: location
  properties: {
    addressSpace: {
      addressPrefixes: [prefix]
    }
    subnets: [
      {
        name: 'nodes'
        properties: {
          addressPrefix: nodeSubnetPrefix
          // No way out but the route table's, or the standby's.
          defaultOutboundAccess: false
          routeTable: isRouted ? {
            id: routeTable.id
          } : null
          natGateway: standbyNatGateway ? {
            id: standby.id
          } : null
        }
      }
    ]
  }
}

// Both ways allow forwarded traffic: answers come to the spoke with the internet's addresses as source.
resource toHub 'Microsoft.Network/virtualNetworks/virtualNetworkPeerings@2024-05-01' = {
  parent: network
  name: 'to-${hubName}'
  properties: {
    allowVirtualNetworkAccess: true
    allowForwardedTraffic: true
    remoteVirtualNetwork: {
      id: hub.id
    }
  }
}

resource fromHub 'Microsoft.Network/virtualNetworks/virtualNetworkPeerings@2024-05-01' = {
  parent: hub
  name: 'to-${name}'
  properties: {
    allowVirtualNetworkAccess: true
    allowForwardedTraffic: true
    remoteVirtualNetwork: {
      id: network.id
    }
  }
}

output vnetName string = network.name
output nodeSubnetName string = 'nodes'
output routeTableName string = routeTable.name

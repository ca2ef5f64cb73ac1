// A test cluster whose only way out is the subnet's default route (outboundType userDefinedRouting).
// AKS looks for that route while it creates the cluster: the route table must be attached by then.

param location string
param name string
param vnetName string
param nodeSubnetName string
param routeTableName string
param nodeSize string = 'Standard_D2as_v5'
@minValue(1)
param nodeCount int = 2

var networkContributor = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '4d97b98b-1d4f-4787-a291-c67834d212e7')

resource network 'Microsoft.Network/virtualNetworks@2024-05-01' existing = {
  name: vnetName

  resource nodes 'subnets' existing = {
    name: nodeSubnetName
  }
}

resource routeTable 'Microsoft.Network/routeTables@2024-05-01' existing = {
  name: routeTableName
}

// A system-assigned identity would exist only once the cluster does, too late for its rights.
resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-cluster'
  location: location
}

resource maySubnet 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: network::nodes
  name: guid(network::nodes.id, identity.id, networkContributor)
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: networkContributor
  }
}

resource mayRoutes 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: routeTable
  name: guid(routeTable.id, identity.id, networkContributor)
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: networkContributor
  }
}

resource cluster 'Microsoft.ContainerService/managedClusters@2025-05-01' = {
  name: name
  location: location
  sku: {
    name: 'Base'
    tier: 'Free'
  }
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identity.id}': {}
    }
  }
  properties: {
    dnsPrefix: name
    agentPoolProfiles: [
      {
        name: 'system'
        mode: 'System'
        count: nodeCount
        vmSize: nodeSize
        osType: 'Linux'
        osSKU: 'Ubuntu'
        type: 'VirtualMachineScaleSets'
        vnetSubnetID: network::nodes.id
      }
    ]
    networkProfile: {
      networkPlugin: 'azure'
      networkPluginMode: 'overlay'
      podCidr: '192.168.0.0/16'
      serviceCidr: '172.16.0.0/16'
      dnsServiceIP: '172.16.0.10'
      loadBalancerSku: 'standard'
      outboundType: 'userDefinedRouting'
    }
  }
  dependsOn: [
    maySubnet
    mayRoutes
  ]
}

@description('The policy\'s api_server_fqdn, which narrows what aks/core allows to this cluster.')
output apiServerFqdn string = cluster.properties.fqdn

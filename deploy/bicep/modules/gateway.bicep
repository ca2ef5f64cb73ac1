// The hub network and the gateway in it: one machine with one interface, and perhaps an internal
// load balancer before it.

param location string
param name string
@allowed(['ubuntu', 'azure-linux'])
param os string
param vmSize string
param adminUsername string
param sshPublicKey string
@secure()
param customData string
param managementPrefixes string[]
param spokePrefixes string[]
param hubPrefix string
param subnetPrefix string
param address string
param frontendAddress string

@description('The admin listener of ../cloud-init/*.yaml.')
param adminPort int = 9090

var hasLoadBalancer = !empty(frontendAddress)
var loadBalancerName = '${name}-front'
var images = {
  ubuntu: {
    publisher: 'Canonical'
    offer: 'ubuntu-24_04-lts'
    sku: 'server'
    version: 'latest'
  }
  'azure-linux': {
    publisher: 'MicrosoftCBLMariner'
    offer: 'azure-linux-3'
    sku: 'azure-linux-3-gen2'
    version: 'latest'
  }
}

// The gateway judges; this keeps strangers from it. The spokes' packets have the addresses of the
// internet as their destination here, so no rule may ask for the virtual network as destination.
resource securityGroup 'Microsoft.Network/networkSecurityGroups@2024-05-01' = {
  name: '${name}-gateway'
  location: location
  properties: {
    securityRules: [
      {
        name: 'spokes'
        properties: {
          description: 'What the spokes send out'
          priority: 100
          direction: 'Inbound'
          access: 'Allow'
          protocol: '*'
          sourceAddressPrefixes: spokePrefixes
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
      {
        name: 'management'
        properties: {
          description: 'ssh and the admin pages'
          priority: 110
          direction: 'Inbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefixes: managementPrefixes
          sourcePortRange: '*'
          destinationAddressPrefix: address
          destinationPortRanges: ['22', string(adminPort)]
        }
      }
      {
        name: 'health'
        properties: {
          description: 'Health probes, which come from 168.63.129.16'
          priority: 120
          direction: 'Inbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefix: 'AzureLoadBalancer'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: string(adminPort)
        }
      }
      {
        name: 'strangers'
        properties: {
          priority: 4096
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

resource hub 'Microsoft.Network/virtualNetworks@2024-05-01' = {
  name: '${name}-hub'
  location: location
  properties: {
    addressSpace: {
      addressPrefixes: [hubPrefix]
    }
    subnets: [
      {
        name: 'gateway'
        properties: {
          addressPrefix: subnetPrefix
          defaultOutboundAccess: false
          networkSecurityGroup: {
            id: securityGroup.id
          }
        }
      }
    ]
  }
}

resource egress 'Microsoft.Network/publicIPAddresses@2024-05-01' = {
  name: '${name}-egress'
  location: location
  sku: {
    name: 'Standard'
  }
  properties: {
    publicIPAllocationMethod: 'Static'
    publicIPAddressVersion: 'IPv4'
    idleTimeoutInMinutes: 30
  }
}

resource front 'Microsoft.Network/loadBalancers@2024-05-01' = if (hasLoadBalancer) {
  name: loadBalancerName
  location: location
  sku: {
    name: 'Standard'
  }
  properties: {
    frontendIPConfigurations: [
      {
        name: 'front'
        properties: {
          privateIPAllocationMethod: 'Static'
          privateIPAddress: frontendAddress
          subnet: {
            id: hub.properties.subnets[0].id
          }
        }
      }
    ]
    backendAddressPools: [
      {
        name: 'gateways'
      }
    ]
    probes: [
      {
        name: 'ready'
        properties: {
          protocol: 'Http'
          port: adminPort
          requestPath: '/readyz'
          intervalInSeconds: 5
          numberOfProbes: 2
        }
      }
    ]
    loadBalancingRules: [
      {
        // HA ports: every protocol, every port.
        name: 'everything'
        properties: {
          frontendIPConfiguration: {
            id: resourceId('Microsoft.Network/loadBalancers/frontendIPConfigurations', loadBalancerName, 'front')
          }
          backendAddressPool: {
            id: resourceId('Microsoft.Network/loadBalancers/backendAddressPools', loadBalancerName, 'gateways')
          }
          probe: {
            id: resourceId('Microsoft.Network/loadBalancers/probes', loadBalancerName, 'ready')
          }
          protocol: 'All'
          frontendPort: 0
          backendPort: 0
          enableFloatingIP: false
          idleTimeoutInMinutes: 30
          enableTcpReset: true
        }
      }
    ]
  }
}

resource interface 'Microsoft.Network/networkInterfaces@2024-05-01' = {
  name: '${name}-gateway'
  location: location
  properties: {
    // Without it Azure drops what is not addressed to the machine itself.
    enableIPForwarding: true
    enableAcceleratedNetworking: true
    ipConfigurations: [
      {
        name: 'first'
        properties: {
          primary: true
          privateIPAllocationMethod: 'Static'
          privateIPAddress: address
          subnet: {
            id: hub.properties.subnets[0].id
          }
          publicIPAddress: {
            id: egress.id
          }
          loadBalancerBackendAddressPools: hasLoadBalancer ? [
            {
              id: resourceId('Microsoft.Network/loadBalancers/backendAddressPools', loadBalancerName, 'gateways')
            }
          ] : []
        }
      }
    ]
  }
  dependsOn: [
    front
  ]
}

resource machine 'Microsoft.Compute/virtualMachines@2024-07-01' = {
  name: '${name}-gateway'
  location: location
  properties: {
    hardwareProfile: {
      vmSize: vmSize
    }
    securityProfile: os == 'ubuntu' ? {
      securityType: 'TrustedLaunch'
      uefiSettings: {
        secureBootEnabled: true
        vTpmEnabled: true
      }
    } : null
    storageProfile: {
      imageReference: images[os]
      osDisk: {
        createOption: 'FromImage'
        deleteOption: 'Delete'
        diskSizeGB: 64
        managedDisk: {
          storageAccountType: 'Premium_LRS'
        }
      }
    }
    osProfile: {
      computerName: '${name}-gateway'
      adminUsername: adminUsername
      customData: base64(customData)
      linuxConfiguration: {
        disablePasswordAuthentication: true
        ssh: {
          publicKeys: [
            {
              path: '/home/${adminUsername}/.ssh/authorized_keys'
              keyData: sshPublicKey
            }
          ]
        }
      }
    }
    networkProfile: {
      networkInterfaces: [
        {
          id: interface.id
          properties: {
            primary: true
            deleteOption: 'Detach'
          }
        }
      ]
    }
    diagnosticsProfile: {
      // The serial console, for when ssh is what is broken.
      bootDiagnostics: {
        enabled: true
      }
    }
  }
}

output hubName string = hub.name
output nextHop string = hasLoadBalancer ? frontendAddress : address
output egressAddress string = egress.properties.ipAddress
output machineName string = machine.name

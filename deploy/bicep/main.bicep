// A hub with the gateway, spokes whose default route is the gateway, and test clusters in them.
// Untested on Azure: see ../README.md, which also says in which order the stages are deployed.
targetScope = 'resourceGroup'

@description('What shall exist. Each stage has what the one before has: the networks and the gateway; the spokes\' route tables attached; the clusters.')
@allowed(['gateway', 'routes', 'clusters'])
param stage string = 'gateway'

param location string = resourceGroup().location

@description('Begins the name of every resource.')
@minLength(2)
@maxLength(20)
param name string = 'egress'

@allowed(['ubuntu', 'azure-linux'])
param os string = 'ubuntu'

@description('Two CPUs serve a lab. Accelerated networking must be possible for the size.')
param vmSize string = 'Standard_D2as_v5'

param adminUsername string = 'azureuser'

@description('An ssh public key; there are no passwords.')
param sshPublicKey string

@description('https address of a bundle made by deploy/bundle; a SAS address may be a secret, so it is one here.')
@secure()
param bundleUrl string

@description('SHA-256 of the bundle, as deploy/bundle prints it.')
@minLength(64)
@maxLength(64)
param bundleSha256 string

@description('Who may reach ssh and the admin pages of the gateway, such as a bastion subnet or an office.')
@minLength(1)
param managementPrefixes string[]

param hubPrefix string = '10.0.0.0/24'
param gatewaySubnetPrefix string = '10.0.0.0/26'

@description('The gateway\'s own address; Azure keeps the first four of a subnet to itself.')
param gatewayAddress string = '10.0.0.4'

@description('An address for an internal load balancer in front of the gateway: routes then point there, and the machine behind it can be replaced. Empty for none.')
param frontendAddress string = ''

type spokeType = {
  @description('Part of names: small letters and digits.')
  name: string
  prefix: string
  nodeSubnetPrefix: string
  @description('Whether the stage clusters makes a cluster here.')
  hasCluster: bool
}

@minLength(1)
param spokes spokeType[] = [
  {
    name: 'lab'
    prefix: '10.240.0.0/16'
    nodeSubnetPrefix: '10.240.0.0/22'
    hasCluster: true
  }
]

@description('A NAT gateway on every node subnet, for backing out: it carries nothing while the route table is attached, and everything once that is off.')
param standbyNatGateway bool = true

var cloudInit = os == 'ubuntu' ? loadTextContent('../cloud-init/ubuntu.yaml') : loadTextContent('../cloud-init/azure-linux.yaml')
var spokePrefixes = map(spokes, spoke => spoke.prefix)
var filled = replace(replace(replace(replace(replace(cloudInit, '@BUNDLE_URL@', bundleUrl), '@BUNDLE_SHA256@', bundleSha256), '@MANAGEMENT@', join(managementPrefixes, '", "')), '@SPOKES@', join(spokePrefixes, '", "')), '@LOCATION@', location)

module gateway 'modules/gateway.bicep' = {
  name: '${name}-gateway'
  params: {
    location: location
    name: name
    os: os
    vmSize: vmSize
    adminUsername: adminUsername
    sshPublicKey: sshPublicKey
    customData: filled
    managementPrefixes: managementPrefixes
    spokePrefixes: spokePrefixes
    hubPrefix: hubPrefix
    subnetPrefix: gatewaySubnetPrefix
    address: gatewayAddress
    frontendAddress: frontendAddress
  }
}

module networks 'modules/spoke.bicep' = [for spoke in spokes: {
  name: '${name}-${spoke.name}-network'
  params: {
    location: location
    name: '${name}-${spoke.name}'
    prefix: spoke.prefix
    nodeSubnetPrefix: spoke.nodeSubnetPrefix
    hubName: gateway.outputs.hubName
    nextHop: gateway.outputs.nextHop
    isRouted: stage != 'gateway'
    standbyNatGateway: standbyNatGateway
  }
}]

module clusters 'modules/cluster.bicep' = [for (spoke, i) in spokes: if (stage == 'clusters' && spoke.hasCluster) {
  name: '${name}-${spoke.name}-cluster'
  params: {
    location: location
    name: '${name}-${spoke.name}'
    vnetName: networks[i].outputs.vnetName
    nodeSubnetName: networks[i].outputs.nodeSubnetName
    routeTableName: networks[i].outputs.routeTableName
  }
}]

@description('Add it to the API servers\' authorized ranges, and to what others allow: all egress has it.')
output egressAddress string = gateway.outputs.egressAddress
output nextHop string = gateway.outputs.nextHop

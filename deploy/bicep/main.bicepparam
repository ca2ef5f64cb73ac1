using 'main.bicep'

// az deployment group create --resource-group GROUP --parameters main.bicepparam stage=gateway
param stage = 'gateway'
param sshPublicKey = readEnvironmentVariable('EGRESS_SSH_KEY')
param bundleUrl = readEnvironmentVariable('EGRESS_BUNDLE_URL')
param bundleSha256 = readEnvironmentVariable('EGRESS_BUNDLE_SHA256')
param managementPrefixes = ['203.0.113.0/28'] // yours

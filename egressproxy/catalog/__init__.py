"""The documented AKS and ACR egress requirements as data, and their loader."""

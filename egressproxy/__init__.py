"""egressproxy: a firewall-grade FQDN egress gateway for AKS (see ARCHITECTURE.md)."""

"""Policies of the lab, as text: what the demo and the tests run under."""

from __future__ import annotations

from typing import Final

from lab import sites

BASE: Final = f"""\
version: 1
cloud: AzureCloud
parameters:
  location: japaneast
  api_server_fqdn: {sites.CLUSTER}
  api_server_ips: [{sites.API_SERVER.addresses[0]}, "{sites.API_SERVER.addresses[1]}"]
  dns_servers: [{sites.DNS_SERVER[0]}, "{sites.DNS_SERVER[1]}"]
sources:
  nodes: [10.240.0.0/16, "fd00:240::/64"]
  second-node: [{sites.SPOKE_SECOND[0]}, "{sites.SPOKE_SECOND[1]}"]
"""
"""Everything up to the requirements."""

DNS: Final = "  - aks/custom-dns\n"
CORE: Final = "  - aks/core\n"
API_SERVER: Final = "  - aks/api-server\n"
REGISTRY: Final = (
    "  - acr: {registry: myregistry, regions: [japaneast], data_endpoint: dedicated}\n"
)


def policy(*requirements: str, rules: str = "") -> str:
    """A policy document from requirement lines and the text below ``rules:``."""
    written = f"rules:\n{rules}" if rules else ""
    return f"{BASE}requirements:\n{''.join(requirements)}{written}"

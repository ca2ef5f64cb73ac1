"""Who lives where in the lab's internet: addresses that look like Azure's, names, and what answers.

Nothing of this leaves the namespaces. Any name that no site claims is answered with the address of
``ELSEWHERE``: a denied name must resolve for the client, or nothing would show that it was denied.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

SPOKE: Final = ("10.240.0.0/24", "fd00:240::/64")
SPOKE_NODE: Final = ("10.240.0.4", "fd00:240::4")
SPOKE_SECOND: Final = ("10.240.0.5", "fd00:240::5")
"""A second node of the spoke, for policies that tell sources apart."""
HUB_INSIDE: Final = ("10.240.0.1", "fd00:240::1")
HUB_OUTSIDE: Final = ("20.50.0.4", "2603:1040:50::4")
INTERNET_GATEWAY: Final = ("20.50.0.1", "2603:1040:50::1")
DNS_SERVER: Final = ("10.0.0.10", "fd00:53::10")
"""The custom DNS server of the hub network; it is reached through the hub."""

CLUSTER: Final = "lab-1a2b.hcp.japaneast.azmk8s.io"
OTHER_CLUSTER: Final = "evil-9z8y.hcp.japaneast.azmk8s.io"
REGISTRY: Final = "myregistry.azurecr.io"
REGISTRY_DATA: Final = "myregistry.japaneast.data.azurecr.io"
OPAQUE: Final = "opaque.contoso.example"
"""Port 443 there is no TLS server: it sends back every byte it gets."""


class Service(Enum):
    """What listens on the ports of a site."""

    WEB = "web"
    """TLS and HTTP: 443, 8443 and 80."""
    OPAQUE = "opaque"
    """A byte-exact echo on 443."""
    TIME = "time"
    """An NTP server on UDP 123."""
    PORTS = "ports"
    """Echoes on ``OPEN_TCP`` and ``OPEN_UDP``: something to be scanned."""


@dataclass(frozen=True, slots=True)
class Site:
    """One host of the internet; a name ``*.x`` claims everything below x."""

    key: str
    addresses: tuple[str, str]
    names: tuple[str, ...]
    service: Service = Service.WEB

    def claims(self, name: str) -> bool:
        """Whether a lower-case name without trailing dot lives here."""
        return any(
            name.endswith(own[1:]) if own.startswith("*.") else name == own for own in self.names
        )


API_SERVER: Final = Site("api-server", ("20.1.2.3", "2603:1040:1::3"), (CLUSTER,))
MICROSOFT: Final = Site(
    "microsoft",
    ("13.107.6.10", "2620:1ec:6::10"),
    (
        "mcr.microsoft.com",
        "*.data.mcr.microsoft.com",
        "mcr-0001.mcr-msedge.net",
        "management.azure.com",
        "login.microsoftonline.com",
        "packages.microsoft.com",
        "acs-mirror.azureedge.net",
        "packages.aks.azure.com",
    ),
)
REGISTRY_FRONT: Final = Site("registry", ("20.43.66.1", "2603:1040:43::1"), (REGISTRY,))
REGISTRY_BLOBS: Final = Site("registry-data", ("20.150.1.1", "2603:1040:150::1"), (REGISTRY_DATA,))
CONTOSO: Final = Site("contoso", ("20.18.0.1", "2603:1040:18::1"), ("*.contoso.example",))
OPAQUE_SITE: Final = Site(
    "opaque", ("20.18.0.2", "2603:1040:18::2"), (OPAQUE,), service=Service.OPAQUE
)
TIME: Final = Site(
    "time", ("185.125.190.56", "2620:2d:4000:1::3f"), ("ntp.ubuntu.com",), service=Service.TIME
)
SQL: Final = Site(
    "sql",
    ("20.191.166.4", "2603:1040:404::4"),
    ("lab-sql.database.windows.net",),
    service=Service.PORTS,
)
"""In the service tag ``Sql.JapanEast``."""
OPEN_TCP: Final = (22, 53, 1433, 3389, 8080, 11000, 11019, 12000, 65535)
OPEN_UDP: Final = (53, 123, 161, 514, 1434, 4500)
ELSEWHERE: Final = Site("elsewhere", ("52.85.1.1", "2600:9000::1"), ())

SITES: Final = (
    API_SERVER,
    MICROSOFT,
    REGISTRY_FRONT,
    REGISTRY_BLOBS,
    OPAQUE_SITE,  # ahead of CONTOSO, whose wildcard claims its name
    CONTOSO,
    TIME,
    SQL,
    ELSEWHERE,
)

PINNED: Final = {
    "v4only.contoso.example": (CONTOSO.addresses[0],),
    "v6only.contoso.example": (CONTOSO.addresses[1],),
    "loopback.contoso.example": ("127.0.0.1", "::1"),
    "metadata.contoso.example": ("169.254.169.254",),
    "private.contoso.example": ("10.50.0.4",),
    "gateway.contoso.example": HUB_OUTSIDE,
}
"""Names with addresses of their own: one family only, or an address that must not be dialled."""

MISSING_SUFFIX: Final = ".invalid"
"""Names below it do not exist (RFC 6761 section 6.4)."""


def site_of(name: str) -> Site:
    """The site that a name lives at."""
    return next((site for site in SITES if site.claims(name)), ELSEWHERE)


def addresses_of(name: str) -> tuple[str, ...]:
    """The addresses of a name, both families; none where the name does not exist."""
    name = name.lower().rstrip(".")
    if name.endswith(MISSING_SUFFIX):
        return ()
    return PINNED.get(name) or site_of(name).addresses

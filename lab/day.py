"""A day of a cluster: what its bootstrap, its workloads, its noise and an intruder try to reach.

Each part is a tuple of ``Visit``; ``live`` makes them, one after another, from the spoke's nodes,
and says which were served. What a reviewer should make of each part is the part's docstring.
"""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab import sites
from lab.tls_client import Offer, open_tls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.network import Network

_SMALL_RECORD: Final = 16


@dataclass(frozen=True, slots=True)
class Visit:
    """A TLS connection; without a name it is to an address alone.

    ``from_second`` is whether the second node makes it; ``is_split`` cuts its small ClientHello
    into many TLS records.
    """

    name: str | None
    from_second: bool = False
    is_split: bool = False


def _visits(*names: str, times: int = 1, from_second: bool = False) -> tuple[Visit, ...]:
    return tuple(Visit(name, from_second) for name in names for _ in range(times))


def _digest(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


BOOTSTRAP: Final = _visits(
    "mcr.microsoft.com",
    "eastus.data.mcr.microsoft.com",
    "management.azure.com",
    "login.microsoftonline.com",
    "packages.microsoft.com",
    "acs-mirror.azureedge.net",
    sites.CLUSTER,
    times=2,
)
"""What every node needs; allowed by ``aks/core``."""

MONITORING: Final = _visits(
    "lab.ods.opinsights.azure.com", "lab.oms.opinsights.azure.com", "dc.services.visualstudio.com"
)
"""A documented add-on whose requirement the policy lacks."""

NOISE: Final = _visits(
    "md-1.blob.storage.azure.net", "md-2.blob.storage.azure.net", times=3
) + _visits("umsa1.blob.core.windows.net")
"""Documented as harmless, or optional, when blocked."""

BUILDS: Final = _visits(
    *(f"build-{_digest(n)[:12]}.artifacts.fabrikam.example" for n in range(8)), times=2
)
"""A service whose left-most label is a hash, each asked for more than once."""

WORKLOAD: Final = (*_visits("www.fabrikam.example", times=4), *BUILDS)
"""Services that the policy never heard of."""

TYPO: Final = _visits("api.contoso.example", times=3)
"""The policy has ``api.contso.example``: a rule that nobody uses, and a near miss."""

EXFILTRATION: Final = (
    *_visits(*(f"{_digest(1000 + n)[:40]}.drop.evil.example" for n in range(60)), from_second=True),
    Visit(None, from_second=True),
    Visit("cdn.evil.example", from_second=True, is_split=True),
)
"""Data in names, then a nameless connection, then a ClientHello cut into crumbs."""

WANTED: Final = (*MONITORING, *WORKLOAD, *TYPO)
"""What a reviewer lets pass in the end."""

DAY: Final = (*BOOTSTRAP, *MONITORING, *NOISE, *WORKLOAD, *TYPO, *EXFILTRATION)
"""All of it."""


def live(lab: Network, visits: Iterable[Visit]) -> dict[str | None, bool]:
    """Make the visits; by name, whether the last one was served."""
    return {visit.name: is_served(lab, visit) for visit in visits}


def is_served(lab: Network, visit: Visit) -> bool:
    """Whether a visit's TLS handshake came to its end."""
    source = (sites.SPOKE_SECOND if visit.from_second else sites.SPOKE_NODE)[0]
    known = sites.addresses_of(visit.name or "")
    offer = Offer(visit.name, record_bytes=_SMALL_RECORD if visit.is_split else 0)
    connection = lab.net.spoke.connect(known[0], 443, source=source)
    with open_tls(connection, offer, lab.authority.ca_file) as client:
        try:
            client.handshake()
        except (ssl.SSLError, OSError):
            return False
    return True

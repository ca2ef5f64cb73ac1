"""Port items of the policy language.

``https`` (tls:443), ``http`` (http:80), ``tls:P``, ``http:P``, ``tcp:P[-Q]``, ``udp:P[-Q]``.

The protocol of an item decides the pass: ``tcp`` and ``udp`` are judged in pass 1 (network),
``tls`` and ``http`` in pass 2 (application).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from egressproxy.errors import PortError

MAX_PORT: Final = 65535
_ITEM = re.compile(r"(tls|http|tcp|udp):([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_SHORT: Final = {"https": "tls:443", "http": "http:80"}


class Protocol(StrEnum):
    """What a flow speaks, as far as the policy cares."""

    TLS = "tls"
    HTTP = "http"
    TCP = "tcp"
    UDP = "udp"

    @property
    def is_application(self) -> bool:
        """Whether this protocol is judged by name, in pass 2."""
        return self in (Protocol.TLS, Protocol.HTTP)


@dataclass(frozen=True, slots=True, order=True)
class PortSpan:
    """Ports ``first`` to ``last``, both included, of one protocol."""

    protocol: Protocol
    first: int
    last: int

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __str__(self) -> str:
        span = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"{self.protocol}:{span}"


def parse_ports(item: str) -> PortSpan:
    """Read one port item.

    Raises:
        PortError: with a hint that says what to write.
    """
    found = _ITEM.fullmatch(_SHORT.get(item, item))
    if not found:
        raise PortError(
            f"{item!r} is not a port item", hint="write https, http, tls:8443, tcp:1433 or udp:123"
        )
    protocol, first = Protocol(found[1]), int(found[2])
    last = int(found[3]) if found[3] else first
    if not 1 <= first <= last <= MAX_PORT:
        raise PortError(f"{item!r} is outside 1-{MAX_PORT} or runs backwards", hint="tcp:8000-8010")
    if protocol.is_application and first != last:
        raise PortError(f"{item!r}: tls and http take one port an item", hint="list each port")
    return PortSpan(protocol, first, last)

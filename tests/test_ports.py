"""Port items."""

from __future__ import annotations

import pytest

from egressproxy.errors import PortError
from egressproxy.ports import PortSpan, Protocol, parse_ports

ACCEPTED = {
    "https": PortSpan(Protocol.TLS, 443, 443),
    "http": PortSpan(Protocol.HTTP, 80, 80),
    "tls:8443": PortSpan(Protocol.TLS, 8443, 8443),
    "http:8080": PortSpan(Protocol.HTTP, 8080, 8080),
    "tcp:1433": PortSpan(Protocol.TCP, 1433, 1433),
    "udp:1-65535": PortSpan(Protocol.UDP, 1, 65535),
}
REFUSED = ["", "443", "https:8443", "tcp:0", "tcp:65536", "tcp:9-3", "tls:1-2", "icmp", "TCP:1",
           "tcp:1\n", "tcp:\u0661", "tcp:-5", "udp:1-2-3"]  # fmt: skip


@pytest.mark.parametrize("item", ACCEPTED)
def test_accepted(item: str) -> None:
    span = parse_ports(item)
    assert span == ACCEPTED[item]
    assert parse_ports(str(span)) == span
    assert span.first in span
    assert span.last + 1 not in span
    assert span.protocol.is_application is (span.protocol in ("tls", "http"))


@pytest.mark.parametrize("item", REFUSED)
def test_refused(item: str) -> None:
    with pytest.raises(PortError) as caught:
        parse_ports(item)
    assert caught.value.hint

"""nmap's view: exactly what the policy opens, and every other try counted and recorded.

Nothing is timed: what the log's reader could not keep up with it says was lost, and that is tried
again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from lab import sites
from lab.programs import missing
from tests.lab.attempts import (
    ALL_TCP,
    COMMON_UDP,
    PATIENCE_S,
    attempt,
    counts,
    datagrams,
    instead_of,
    port_of,
    scan,
)
from tests.lab.conftest import NETWORK_RULES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.gateway import Gateway

pytestmark = [pytest.mark.netns, pytest.mark.timeout(150)]

FAMILY: Final = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
EVERY_PORT: Final = frozenset(range(1, 1 << 16))
RECORDED: Final = ("--min-rate", "8000", "--max-rate", "8000")
APPLICATION: Final = {80, 443}
SQL_OPEN: Final = {1433, 11000}
SQL_ALLOWED: Final = {1433, *range(11000, 11019)}


@pytest.fixture(autouse=True, scope="module")
def _nmap() -> None:
    if missing("nmap"):
        pytest.skip("nmap is not installed")


@pytest.fixture(scope="module")
def watched(session_gateway: Gateway) -> Iterator[Gateway]:
    """A gateway that logs every packet and folds nothing."""
    options = ("--log-rate", "1000000", "--fold-window-s", "0")
    with instead_of(session_gateway, NETWORK_RULES, *options) as other:
        yield other


def _lost(gateway: Gateway) -> float:
    return gateway.metric("egressproxy_kernel_lost_packets_total")


def _recorded(gateway: Gateway, skip: int, address: str) -> set[int]:
    """Ports whose refusal is in the log, once the log has caught up with a last packet."""
    with datagrams(gateway.lab.net.spoke, address, 9) as last:
        last.send(b"the end")
        gateway.record(skip=skip, src_port=port_of(last), dst_port=9, timeout_s=PATIENCE_S)
    return {
        record["dst_port"]
        for record in gateway.records.read()[skip:]
        if record["protocol"] == "tcp" and record["dst_ip"] == address
    }


@FAMILY
def test_every_tcp_port_of_a_host(watched: Gateway, family: int, tmp_path: Path) -> None:
    """Open, closed by the host itself, or dropped: as the policy says, and all the rest recorded.

    Application ports look open to a scan, as with Azure Firewall: the proxy answers for any host.
    A try without a word is counted there, and not recorded.
    """
    spoke, address = watched.lab.net.spoke, sites.SQL.addresses[family]
    mark, lost, before = watched.records.mark(), _lost(watched), counts(watched)
    found = scan(spoke, address, *ALL_TCP, *RECORDED, folder=tmp_path)
    assert found.of("open") == SQL_OPEN | APPLICATION
    assert found.of("closed") == SQL_ALLOWED - SQL_OPEN
    assert found.of("filtered") | EVERY_PORT - found.states.keys() == (
        EVERY_PORT - SQL_ALLOWED - APPLICATION
    )
    denied = EVERY_PORT - SQL_ALLOWED - APPLICATION
    counted = counts(watched).since(before)
    assert counted.judged == found.sent
    assert counted.outcomes["default_deny"] + counted.rules["rules/no-dac"] >= len(denied)
    assert counted.outcomes["proxied"] >= len(APPLICATION)
    recorded = _recorded(watched, mark, address)
    while unrecorded := denied - recorded:
        assert _lost(watched) - lost >= len(unrecorded), "denies without a record, and none lost"
        lost = _lost(watched)
        for port in unrecorded:
            with attempt(spoke, address, port):
                pass
        recorded |= _recorded(watched, mark, address)
    assert recorded == denied


@FAMILY
def test_a_scan_that_connects_is_counted_and_no_deny(
    watched: Gateway, family: int, tmp_path: Path
) -> None:
    """It said nothing, so there is nothing to judge; what nmap resets is not even accepted."""
    spoke, address = watched.lab.net.spoke, sites.ELSEWHERE.addresses[family]
    mark, before = watched.records.mark(), counts(watched)
    ports = ",".join(map(str, APPLICATION))
    found = scan(spoke, address, "-sT", "-p", ports, folder=tmp_path)
    assert found.of("open") == APPLICATION
    assert counts(watched).since(before).outcomes == {"proxied": len(APPLICATION)}
    assert _recorded(watched, mark, address) == set()


@FAMILY
def test_common_udp_ports_of_a_host(watched: Gateway, family: int, tmp_path: Path) -> None:
    """An echo answers where a rule allows, the gateway itself refuses 443, all else is silent."""
    address = sites.CONTOSO.addresses[family]
    mark, before = watched.records.mark(), counts(watched)
    found = scan(watched.lab.net.spoke, address, *COMMON_UDP, folder=tmp_path)
    counted = counts(watched).since(before)
    assert found.of("open", "closed") == {5000}
    assert found.of("filtered") == {443}, "ICMP port unreachable of another than the host"
    assert found.rest == "open|filtered"
    assert counted.judged == found.sent
    assert counted.outcomes["quic_refused"] >= 1
    assert watched.record(skip=mark, dst_ip=address, dst_port=443)["reason"] == "quic_refused"
    assert watched.record(skip=mark, dst_ip=address, dst_port=53)["reason"] == "default_deny"

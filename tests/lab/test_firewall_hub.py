"""The hub itself as nmap sees it, and its log under a flood."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest

from lab import sites
from lab.gateway import EXPLICIT_PORT
from lab.programs import missing
from tests.lab.attempts import ALL_TCP, COMMON_UDP, counts, datagrams, instead_of, scan, wait_for
from tests.lab.conftest import NETWORK_RULES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.gateway import Gateway

pytestmark = [pytest.mark.netns, pytest.mark.timeout(100)]

FAMILY: Final = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
FAST: Final = ("--min-rate", "20000")
TCP_PORTS: Final = (1 << 16) - 1
FLOOD: Final = 2000
LOG_RATE: Final = 50
"""Packets a second that the gateway logs, and its burst."""


@pytest.fixture(scope="module")
def sparing(session_gateway: Gateway) -> Iterator[Gateway]:
    """A gateway that logs few packets and folds them."""
    options = ("--log-rate", str(LOG_RATE), "--fold-window-s", "1")
    with instead_of(session_gateway, NETWORK_RULES, *options) as other:
        yield other


def test_a_flood_is_counted_exactly_and_recorded_in_few_lines(sparing: Gateway) -> None:
    mark, before = sparing.records.mark(), counts(sparing)
    logged = sparing.metric("egressproxy_kernel_packets_total")
    started = time.monotonic()
    with datagrams(sparing.lab.net.spoke, sites.SQL.addresses[0], 4500) as flood:
        for _ in range(FLOOD):
            flood.send(b"again")
    lasted_s = time.monotonic() - started
    counted = counts(sparing).since(before)
    assert counted.outcomes == {"default_deny": FLOOD}

    def told() -> float:
        return sparing.metric("egressproxy_kernel_packets_total") - logged

    def folded() -> int:
        records = sparing.records.read()[mark:]
        return sum(record["count"] for record in records if record["dst_port"] == 4500)

    wait_for(lambda: folded() >= LOG_RATE, "what was logged has no records")
    wait_for(lambda: folded() == told(), "records do not add up to what was logged")
    assert told() <= LOG_RATE * (2 + lasted_s)
    assert len(sparing.records.read()[mark:]) <= 3 + lasted_s
    assert sparing.metric("egressproxy_kernel_lost_packets_total") == 0


@FAMILY
@pytest.mark.parametrize("side", ["spoke", "internet"])
def test_the_hub_shows_only_what_is_meant(
    sparing: Gateway, side: str, family: int, tmp_path: Path
) -> None:
    """The explicit listener, to those who may use it; not the redirected port, not admin."""
    if missing("nmap"):
        pytest.skip("nmap is not installed")
    net = sparing.lab.net
    scanner = net.spoke if side == "spoke" else net.internet
    place = sites.HUB_INSIDE if side == "spoke" else sites.HUB_OUTSIDE
    meant = {EXPLICIT_PORT} if side == "spoke" else set()
    before = counts(sparing)
    tcp = scan(scanner, place[family], *ALL_TCP, *FAST, folder=tmp_path)
    assert tcp.of("open", "closed", "unfiltered") == meant
    assert tcp.rest == "filtered"
    udp = scan(scanner, place[family], *COMMON_UDP, folder=tmp_path)
    assert udp.of("open", "closed", "filtered") == set()
    refused = counts(sparing).since(before).outcomes["input"]
    assert refused >= TCP_PORTS - len(meant) + udp.sent

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.doctor.plan import Plan
from egressproxy.doctor.tracking import check_conntrack, check_source_ports
from egressproxy.planes.context import ListenerKind
from egressproxy.service.options import Endpoint, Listener
from egressproxy.settings import Settings
from tests.doctor.machines import levels, machine, sysctls

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "net__netfilter__nf_conntrack_"


def conntrack(most: int, count: int, **more: int) -> dict[str, str]:
    values = {"max": most, "count": count, **more}
    return sysctls(**{PREFIX + name: value for name, value in values.items()})


@pytest.mark.parametrize(
    ("most", "count", "max_flows", "level"),
    [
        (262_144, 5, 20_000, "ok"),
        (262_144, 5, 200_000, "warn"),
        (65_536, 5, 20_000, "warn"),
        (262_144, 200_000, 20_000, "warn"),
        (262_144, 262_144, 20_000, "fail"),
    ],
    ids=["room", "too-small-for-max-flows", "too-small", "filling", "full"],
)
def test_size(most: int, count: int, max_flows: int, level: str, tmp_path: Path) -> None:
    plan = Plan(settings=Settings(max_flows=max_flows))
    found = levels(check_conntrack(machine(tmp_path, conntrack(most, count)), plan))
    assert found == {"conntrack": level}


def test_not_loaded(tmp_path: Path) -> None:
    assert levels(check_conntrack(machine(tmp_path, {}), Plan())) == {"conntrack": "ok"}


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("entries drop early_drop\n0000001f 00000000 00000000\n0 0 0", "ok"),
        ("entries drop early_drop\n0000001f 0000000a 00000000\n0 0000000a 0", "warn"),
        ("entries drop\nnonsense", "ok"),
    ],
)
def test_losses(text: str, level: str, tmp_path: Path) -> None:
    files = conntrack(262_144, 5) | {"proc/net/stat/nf_conntrack": text}
    found = list(check_conntrack(machine(tmp_path, files), Plan()))
    assert levels(found)["conntrack losses"] == level
    if level == "warn":
        assert "drop 20" in found[1].seen


def test_entries_that_die_before_the_keepalive(tmp_path: Path) -> None:
    files = conntrack(262_144, 5, tcp_timeout_established=100)
    assert levels(check_conntrack(machine(tmp_path, files), Plan()))["conntrack timeout"] == "fail"


def ports(text: str, **more: str) -> dict[str, str]:
    return {"proc/sys/net/ipv4/ip_local_port_range": text, **more}


AMONG = (Listener(ListenerKind.REDIRECT, Endpoint("::", 40_000)),)
RESERVED = {"proc/sys/net/ipv4/ip_local_reserved_ports": "40000"}


@pytest.mark.parametrize(
    ("files", "listeners", "level"),
    [
        (ports("32768\t60999"), (), "ok"),
        (ports("32768\t40000"), (), "warn"),
        (ports("32768\t60999"), AMONG, "warn"),
        (ports("32768\t60999", **RESERVED), AMONG, "ok"),
    ],
    ids=["usual", "few", "our-listener-among-them", "reserved"],
)
def test_source_ports(
    files: dict[str, str], listeners: tuple[Listener, ...], level: str, tmp_path: Path
) -> None:
    found = check_source_ports(machine(tmp_path, files), Plan(listeners=listeners))
    assert levels(found)["source ports"] == level


def test_no_range_no_word(tmp_path: Path) -> None:
    assert not list(check_source_ports(machine(tmp_path, {}), Plan()))


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("sockets: used 9\nTCP: inuse 5 orphan 0 tw 7 alloc 9 mem 3\nUDP: inuse 1 mem 0", "ok"),
        ("TCP: inuse 5000 orphan 0 tw 20000 alloc 9 mem 3", "warn"),
        ("TCP: inuse x tw", "ok"),
        ("", "ok"),
    ],
)
def test_ports_in_use(text: str, level: str, tmp_path: Path) -> None:
    files = ports("32768 60999") | {"proc/net/sockstat": text}
    assert levels(check_source_ports(machine(tmp_path, files), Plan()))["SNAT ports"] == level

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.doctor.forwarding import check_forwarding
from tests.doctor.machines import levels, machine, sysctls

if TYPE_CHECKING:
    from pathlib import Path

ROUTE = {"proc/net/route": "Iface\tDestination\nx\teth0\n"}
DEFAULT = {
    "proc/net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
    "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
}
OFF = sysctls(net__ipv4__ip_forward=0, net__ipv6__conf__all__forwarding=0)
ON = sysctls(
    net__ipv4__ip_forward=1,
    net__ipv6__conf__all__forwarding=1,
    net__ipv4__conf__all__send_redirects=0,
    net__ipv4__conf__all__accept_source_route=0,
    net__ipv4__conf__all__accept_redirects=0,
    net__ipv4__conf__all__src_valid_mark=1,
    net__netfilter__nf_conntrack_tcp_loose=0,
)


@pytest.mark.parametrize(
    ("files", "in_force", "level"),
    [
        (OFF, False, "ok"),
        (OFF | sysctls(net__ipv4__ip_forward=1), False, "fail"),
        (OFF | sysctls(net__ipv6__conf__all__forwarding=1), False, "fail"),
        (ON, True, "ok"),
        (ON | sysctls(net__ipv4__ip_forward=0), True, "fail"),
        (ON | sysctls(net__netfilter__nf_conntrack_tcp_loose=1), True, "fail"),
    ],
    ids=["off", "on-unjudged", "ipv6-unjudged", "as-wanted", "off-in-force", "changed"],
)
def test_forwarding(files: dict[str, str], in_force: bool, level: str, tmp_path: Path) -> None:
    found = list(check_forwarding(machine(tmp_path, files | DEFAULT), in_force=in_force))
    assert levels(found)["forwarding"] == level
    assert levels(found)["default route"] == "ok"


@pytest.mark.parametrize(
    ("files", "level"), [(OFF, "ok"), (ON, "warn")], ids=["off", "on-and-guarded"]
)
def test_a_guard_without_a_table_is_closed(
    files: dict[str, str], level: str, tmp_path: Path
) -> None:
    found = check_forwarding(machine(tmp_path, files), in_force=False, is_closed=True)
    assert levels(found)["forwarding"] == level


def test_the_fix_undoes_it(tmp_path: Path) -> None:
    files = ON | sysctls(net__ipv4__ip_forward=0)
    first = next(check_forwarding(machine(tmp_path, files), in_force=True))
    assert first.fix.startswith("sysctl -w net.ipv4.ip_forward=1 ")


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("net.ipv4.ip_forward=1", "warn"),
        (" -net/ipv4/ip_forward = 1 ", "warn"),
        ("net.ipv6.conf.all.forwarding = 1", "warn"),
        ("# net.ipv4.ip_forward=1", "ok"),
        ("net.ipv4.ip_forward=0", "ok"),
    ],
)
def test_at_boot(line: str, level: str, tmp_path: Path) -> None:
    files = {"etc/sysctl.d/99-x.conf": f"# a comment\n{line}\n", "etc/sysctl.d/README": line}
    found = check_forwarding(machine(tmp_path, OFF | files), in_force=False)
    assert levels(found)["forwarding at boot"] == level


@pytest.mark.parametrize(
    ("every", "eth0", "level"), [(0, 0, "ok"), (0, 1, "warn"), (1, 0, "warn"), (2, 1, "ok")]
)
def test_rp_filter(every: int, eth0: int, level: str, tmp_path: Path) -> None:
    files = sysctls(
        net__ipv4__conf__all__rp_filter=every,
        net__ipv4__conf__default__rp_filter=1,
        net__ipv4__conf__lo__rp_filter=1,
        net__ipv4__conf__eth0__rp_filter=eth0,
    )
    found = levels(check_forwarding(machine(tmp_path, files), in_force=False))
    assert found["rp_filter"] == level


@pytest.mark.parametrize("text", ["", "Iface\n", "Iface\nx\n", ROUTE["proc/net/route"]])
def test_no_default_route(text: str, tmp_path: Path) -> None:
    seen = machine(tmp_path, {"proc/net/route": text})
    assert levels(check_forwarding(seen, in_force=False))["default route"] == "fail"

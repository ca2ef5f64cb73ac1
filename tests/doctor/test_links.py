from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.doctor.links import check_ipv6, check_mtu
from tests.doctor.machines import levels, machine, sysctls

if TYPE_CHECKING:
    from pathlib import Path

UP, DOWN, LOOPBACK = "0x1003", "0x1002", "0x9"


def link(name: str, mtu: int, flags: str = UP) -> dict[str, str]:
    folder = f"sys/class/net/{name}"
    return {f"{folder}/mtu": f"{mtu}\n", f"{folder}/flags": f"{flags}\n"}


@pytest.mark.parametrize(
    ("files", "level"),
    [
        (link("eth0", 1500) | link("lo", 65536, LOOPBACK), "ok"),
        (link("eth0", 1500) | link("eth1", 1400), "warn"),
        (link("eth0", 1500) | link("eth1", 9000), "warn"),
        (link("eth0", 1400), "warn"),
        (link("eth0", 1000), "fail"),
        (link("eth0", 1500) | link("eth1", 576, DOWN), "ok"),
        (link("lo", 65536, LOOPBACK), "fail"),
    ],
    ids=["usual", "smaller", "larger", "small", "too-small", "down", "none"],
)
def test_mtu(files: dict[str, str], level: str, tmp_path: Path) -> None:
    assert levels(check_mtu(machine(tmp_path, files))) == {"MTU": level}


LOCAL = "fe800000000000000000000000000001 02 40 20 80     eth0\n"
ULA = "fd000000000000000000000000000001 02 40 00 80     eth0\n"
GLOBAL = "20010db8000000000000000000000001 02 40 00 80     eth0\n"
_ROUTE = "{to} {bits} " + "0" * 32 + " 00 fe8" + "0" * 28 + "1 00000400 1 0 {flags} {name}\n"
DEFAULT = _ROUTE.format(to="0" * 32, bits="00", flags="00450003", name="eth0")
REJECT = _ROUTE.format(to="0" * 32, bits="00", flags="00200200", name="lo")


@pytest.mark.parametrize(
    ("addresses", "routes", "more", "expected"),
    [
        ("", "", {}, {"IPv6": "ok"}),
        (LOCAL + ULA, DEFAULT, {}, {"IPv6": "ok"}),
        (LOCAL + GLOBAL, DEFAULT, {}, {"IPv6": "ok"}),
        (LOCAL + GLOBAL, REJECT, {}, {"IPv6": "warn"}),
        (GLOBAL, "", sysctls(net__ipv6__conf__all__disable_ipv6=1), {"IPv6": "ok"}),
        (
            GLOBAL,
            DEFAULT,
            sysctls(net__ipv6__conf__all__forwarding=1, net__ipv6__conf__eth0__accept_ra=1),
            {"IPv6": "ok", "IPv6 route": "fail"},
        ),
        (
            GLOBAL,
            DEFAULT,
            sysctls(net__ipv6__conf__all__forwarding=1, net__ipv6__conf__eth0__accept_ra=2),
            {"IPv6": "ok"},
        ),
    ],
    ids=["none", "unique-local", "whole", "no-route", "disabled", "deaf-router", "router"],
)
def test_ipv6(
    addresses: str, routes: str, more: dict[str, str], expected: dict[str, str], tmp_path: Path
) -> None:
    files = {"proc/net/if_inet6": addresses, "proc/net/ipv6_route": routes, **more}
    assert levels(check_ipv6(machine(tmp_path, files))) == expected

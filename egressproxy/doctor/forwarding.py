"""Does this machine forward, only while it judges, and with the sysctls that a gateway needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from egressproxy.doctor.finding import fail, ok, warn
from egressproxy.kernel.sysctls import sysctl_differences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.doctor.finding import Finding
    from egressproxy.doctor.machine import Machine

_FORWARD: Final = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
_SYSCTL_FOLDERS: Final = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "lib/sysctl.d")
_AT_BOOT: Final = re.compile(
    r"^\s*-?net[./](?:ipv4[./](?:ip_forward|conf[./]all[./]forwarding)|ipv6[./]conf[./]all[./]"
    r"forwarding)\s*=\s*1\s*$",
    re.MULTILINE,
)
_STRICT: Final = 1
_MAX_SHOWN: Final = 4
_UP: Final = "egressproxy up --config /etc/egressproxy/config.yaml"


def check_forwarding(
    machine: Machine, *, in_force: bool, is_closed: bool = False
) -> Iterator[Finding]:
    """The sysctls, by what else is in place.

    Args:
        machine: what to look at.
        in_force: whether the kernel has our table.
        is_closed: whether the routing guard stops what no table judged.
    """
    forwards = [name for name in _FORWARD if machine.sysctl(name)]
    if in_force:
        yield from _as_wanted(machine, forwards)
    elif forwards and is_closed:
        yield warn(
            "forwarding",
            f"{', '.join(forwards)} = 1, no table inet egressproxy, and the routing guard in place",
            "nothing is forwarded until the table is there",
            f"{_UP}   # or: egressproxy down",
        )
    elif forwards:
        yield fail(
            "forwarding",
            f"{', '.join(forwards)} = 1, and no table inet egressproxy",
            "this machine forwards packets that nobody judges",
            f"{_UP}   # or: sysctl -w " + " ".join(f"{name}=0" for name in forwards),
        )
    else:
        yield ok("forwarding", "off: `egressproxy up` turns it on, as its last step")
    yield from _at_boot(machine)
    yield from _rp_filter(machine)
    yield _default_route(machine)


def _as_wanted(machine: Machine, forwards: list[str]) -> Iterator[Finding]:
    different = sysctl_differences(proc=machine.root / "proc" / "sys")
    if not different:
        yield ok("forwarding", f"{', '.join(forwards)} = 1, and the other sysctls as wanted")
        return
    names = [
        (each.name.replace("/", "."), each.wanted, each.now or "missing") for each in different
    ]
    seen = ", ".join(f"{name}={now}" for name, _, now in names[:_MAX_SHOWN])
    more = len(names) - _MAX_SHOWN
    yield fail(
        "forwarding",
        seen + (f" and {more} more" if more > 0 else ""),
        "our table is in the kernel, and the machine is not as `egressproxy up` leaves it",
        f"sysctl -w {names[0][0]}={names[0][1]}   # systemctl restart egressproxy sets all",
    )


def _at_boot(machine: Machine) -> Iterator[Finding]:
    """Forwarding that is on before our table is there."""
    files = ["etc/sysctl.conf"]
    for folder in _SYSCTL_FOLDERS:
        names = machine.entries(folder)
        files += [f"{folder}/{name}" for name in names if name.endswith(".conf")]
    found = [f"/{file}" for file in files if _AT_BOOT.search(machine.text(file))]
    if found:
        yield warn(
            "forwarding at boot",
            f"set in {', '.join(found[:_MAX_SHOWN])}",
            "after a restart packets are forwarded before the kernel has our rules",
            f"sed -i '/forward/s/^/#/' {found[0]}   # `egressproxy up` sets it itself",
        )
    else:
        yield ok("forwarding at boot", "off until `egressproxy up`")


def _rp_filter(machine: Machine) -> Iterator[Finding]:
    """Linux takes the larger one of ``all`` and the interface's (ip-sysctl.rst)."""
    folder = "proc/sys/net/ipv4/conf"
    every = machine.number(f"{folder}/all/rp_filter") or 0
    strict = [
        name
        for name in machine.entries(folder)
        if name not in ("all", "default", "lo")
        and max(every, machine.number(f"{folder}/{name}/rp_filter") or 0) == _STRICT
    ]
    if strict:
        yield warn(
            "rp_filter",
            f"strict on {', '.join(strict[:_MAX_SHOWN])}",
            "a packet that came by another interface than its answer would leave by is dropped,"
            " without a word",
            "sysctl -w net.ipv4.conf.all.rp_filter=2   # loose",
        )
    else:
        yield ok("rp_filter", "not strict")


def _default_route(machine: Machine) -> Finding:
    """From /proc/net/route: interface, destination and the mask are its columns 0, 1 and 7."""
    for line in machine.text("proc/net/route").splitlines()[1:]:
        words = line.split()
        if len(words) > 7 and words[1] == words[7] == "00000000":
            return ok("default route", f"IPv4 by {words[0]}")
    return fail(
        "default route",
        "no IPv4 default route",
        "nothing can be reached from here",
        "ip route   # and the subnet's route table in Azure: not 0.0.0.0/0 to this machine itself",
    )

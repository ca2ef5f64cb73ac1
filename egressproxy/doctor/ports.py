"""Who listens: are our ports free or ours, and what else is open. /proc/net/tcp (proc_net(5))."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from egressproxy.doctor.finding import fail, ok
from egressproxy.kernel.destination import plain_address
from egressproxy.service.options import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.doctor.finding import Finding
    from egressproxy.doctor.machine import Machine
    from egressproxy.doctor.plan import Plan
    from egressproxy.doctor.rules import KernelRules

_LISTEN: Final = "0A"
_OURS: Final = "egressproxy"
_MAX_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Listening:
    """A listening TCP socket; ``owner`` is a command line, empty where it cannot be seen."""

    address: str
    port: int
    owner: str

    @property
    def is_ours(self) -> bool:
        """Whether a process of this service has it."""
        return _OURS in self.owner


def check_ports(
    machine: Machine, plan: Plan, rules: KernelRules | None = None
) -> Iterator[Finding]:
    """Every listener of the plan and of the kernel's table, and who else can be reached.

    ``rules`` is what the kernel has; ``None`` where there is to be no firewall.
    """
    found = listening(machine)
    taken = frozenset() if rules is None else rules.proxy_ports
    wanted = [(str(each.kind), each.endpoint) for each in plan.listeners]
    if plan.admin is not None:
        wanted.append(("admin", plan.admin))
    planned = {endpoint.port for _, endpoint in wanted}
    wanted += [("application flows", Endpoint("::", port)) for port in sorted(taken - planned)]
    for what, endpoint in wanted:
        if endpoint.port:
            yield _port(what, endpoint, found, is_taken_to=endpoint.port in taken)
    others = {
        f"{each.port} ({_program(each.owner)})"
        for each in found
        if not each.is_ours and not ip_address(each.address).is_loopback
    }
    shown = ", ".join(sorted(others)[:_MAX_SHOWN]) or "nobody"
    more = f" and {len(others) - _MAX_SHOWN} more" if len(others) > _MAX_SHOWN else ""
    yield ok("other listeners", f"{shown}{more}{_shut(rules)}")


def listening(machine: Machine) -> list[Listening]:
    """Every TCP listener of this network namespace."""
    rows = [
        *_rows(machine.text("proc/net/tcp"), socket.AF_INET),
        *_rows(machine.text("proc/net/tcp6"), socket.AF_INET6),
    ]
    owners = _owners(machine, {inode for _, _, inode in rows})
    return [Listening(address, port, owners.get(inode, "")) for address, port, inode in rows]


def open_ports(machine: Machine) -> frozenset[int]:
    """The TCP ports where somebody listens for others than this machine itself."""
    rows = [
        *_rows(machine.text("proc/net/tcp"), socket.AF_INET),
        *_rows(machine.text("proc/net/tcp6"), socket.AF_INET6),
    ]
    return frozenset(port for address, port, _ in rows if not ip_address(address).is_loopback)


def _shut(rules: KernelRules | None) -> str:
    if rules is None:
        return ""
    verb = "shuts" if rules.is_there else "will shut"
    return f"; the input chain {verb} what is not SSH or ours"


def _port(
    what: str, endpoint: Endpoint, found: list[Listening], *, is_taken_to: bool = False
) -> Finding:
    check = f"port {endpoint.port} ({what})"
    holders = [each for each in found if each.port == endpoint.port and _meets(each, endpoint)]
    if not holders and is_taken_to:
        return fail(
            check,
            "free, and the table takes application flows to it",
            "the service does not run: whatever it would judge by name is refused",
            "systemctl start egressproxy; journalctl -u egressproxy",
        )
    if not holders:
        return ok(check, "free")
    strangers = [each for each in holders if not each.is_ours]
    if not strangers:
        return ok(check, "ours")
    owner = strangers[0].owner
    return fail(
        check,
        f"taken by {_program(owner)}",
        "the service cannot listen there, and does not start",
        f"ss -ltnp sport = :{endpoint.port}   # then stop it, or choose another port",
    )


def _meets(each: Listening, endpoint: Endpoint) -> bool:
    """Whether two sockets cannot have the port both; ``::`` has IPv4, too."""
    one, other = ip_address(each.address), ip_address(endpoint.address)
    if one.is_unspecified or other.is_unspecified:
        return True
    return one == other


def _rows(text: str, family: int) -> Iterator[tuple[str, int, int]]:
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) > 9 and words[3] == _LISTEN and words[9].isdigit():
            place = _place(words[1], family)
            if place is not None:
                yield (*place, int(words[9]))


def _place(text: str, family: int) -> tuple[str, int] | None:
    """``0100007F:1F90``: 32-bit words as this machine's own byte order has them in a register."""
    host, _, port = text.partition(":")
    try:
        words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
        packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
        return plain_address(socket.inet_ntop(family, packed)), int(port, 16)
    except ValueError:
        return None


def _owners(machine: Machine, inodes: set[int]) -> dict[int, str]:
    owners: dict[int, str] = {}
    for process in machine.processes():
        for inode in machine.sockets_of(process.pid) & inodes:
            owners.setdefault(inode, process.command)
    return owners


def _program(command: str) -> str:
    """The program's own name, as a person would say it."""
    words = command.split()
    if not words:
        return "a program that this user cannot see"
    name = words[0].rpartition("/")[2].rstrip(":")
    return name[:40] if name.isprintable() else "a program"

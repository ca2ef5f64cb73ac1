from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

from egressproxy.doctor.machine import Machine
from egressproxy.doctor.plan import Plan
from egressproxy.doctor.ports import check_ports, listening, open_ports
from egressproxy.doctor.rules import KernelRules
from egressproxy.planes.context import ListenerKind
from egressproxy.service.options import Endpoint, Listener
from tests.doctor.machines import levels, machine

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid inode\n"


def row(place: str, state: str, inode: int) -> str:
    return f"   0: {place} 00000000:0000 {state} 00000000:00000000 00:00000000 0 0 0 {inode} 1 0\n"


def word(text: str) -> str:
    """An IPv4 address as the kernel prints it on this machine."""
    return f"{int.from_bytes(socket.inet_aton(text), sys.byteorder):08X}"


TCP = HEAD + row(f"{word('0.0.0.0')}:0016", "0A", 11) + row(f"{word('127.0.0.1')}:2382", "0A", 12)
TCP += row(f"{word('10.0.0.4')}:01BB", "01", 13)


@pytest.fixture
def seen(tmp_path: Path) -> Machine:
    """sshd on 22 of every address, a worker on 127.0.0.1:9090, an open connection on 443."""
    built = machine(
        tmp_path,
        {
            "proc/net/tcp": TCP,
            "proc/50/cmdline": "/usr/sbin/sshd\0-D\0",
            "proc/51/cmdline": "python\0-m\0egressproxy.service.worker\0",
            "proc/50/fd/.keep": "",
            "proc/51/fd/.keep": "",
        },
    )
    (tmp_path / "proc/50/fd/3").symlink_to("socket:[11]")
    (tmp_path / "proc/51/fd/7").symlink_to("socket:[12]")
    return built


def test_who_listens(seen: Machine) -> None:
    assert [(each.address, each.port, each.is_ours) for each in listening(seen)] == [
        ("0.0.0.0", 22, False),
        ("127.0.0.1", 9090, True),
    ]


def test_which_ports_are_open_to_others(seen: Machine) -> None:
    assert open_ports(seen) == {22}


@pytest.mark.parametrize(
    ("address", "port", "level"),
    [
        ("0.0.0.0", 22, "fail"),
        ("::", 22, "fail"),
        ("10.0.0.4", 22, "fail"),
        ("127.0.0.1", 9090, "ok"),
        ("10.0.0.4", 9090, "ok"),
        ("0.0.0.0", 443, "ok"),
    ],
    ids=["taken", "taken-dual", "taken-by-wildcard", "ours", "other-address", "only-connected"],
)
def test_our_ports(address: str, port: int, level: str, seen: Machine) -> None:
    plan = Plan(listeners=(Listener(ListenerKind.EXPLICIT, Endpoint(address, port)),))
    found = list(check_ports(seen, plan))
    assert levels(found)[f"port {port} (explicit)"] == level
    if level == "fail":
        assert "taken by sshd" in found[0].seen


REDIRECT = Plan(listeners=(Listener(ListenerKind.REDIRECT, Endpoint("::", 15001)),))
SSHD = Plan(listeners=(Listener(ListenerKind.REDIRECT, Endpoint("::", 22)),))


@pytest.mark.parametrize(
    ("plan", "taken_to", "check", "level"),
    [
        (REDIRECT, {15001}, "port 15001 (redirect)", "fail"),
        (REDIRECT, set(), "port 15001 (redirect)", "ok"),
        (REDIRECT, {15009}, "port 15009 (application flows)", "fail"),
        (Plan(), {15001}, "port 15001 (application flows)", "fail"),
        (SSHD, {22}, "port 22 (redirect)", "fail"),
    ],
    ids=["dead", "before-up", "another-port", "no-configuration", "a-stranger"],
)
def test_nobody_where_the_table_takes_flows(
    plan: Plan, taken_to: set[int], check: str, level: str, seen: Machine
) -> None:
    rules = KernelRules(is_there=True, proxy_ports=frozenset(taken_to))
    assert levels(check_ports(seen, plan, rules))[check] == level


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        (None, ""),
        (KernelRules(), "; the input chain will shut what is not SSH or ours"),
        (KernelRules(is_there=True), "; the input chain shuts what is not SSH or ours"),
    ],
    ids=["proxy-only", "before-up", "up"],
)
def test_what_shuts_the_others(rules: KernelRules | None, word: str, seen: Machine) -> None:
    (found,) = check_ports(seen, Plan(), rules)
    assert found.seen == f"22 (sshd){word}"


def test_strangers_are_named_and_loopback_is_not(seen: Machine) -> None:
    (found,) = check_ports(seen, Plan(admin=Endpoint("127.0.0.1", 0)))
    assert found.seen == "22 (sshd)"


def test_an_owner_that_may_not_be_seen(seen: Machine) -> None:
    (seen.root / "proc/50/fd/3").unlink()
    (found,) = check_ports(seen, Plan())
    assert "a program that this user cannot see" in found.seen


@pytest.mark.parametrize("text", ["", HEAD, HEAD + "x\n", HEAD + row("zz:16", "0A", 1), HEAD * 2])
def test_what_cannot_be_read(text: str, tmp_path: Path) -> None:
    assert listening(machine(tmp_path, {"proc/net/tcp": text, "proc/net/tcp6": text})) == []


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_real_listener(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as sock:
        port = sock.getsockname()[1]
        (found,) = [each for each in listening(Machine()) if each.port == port]
        assert found.address == address
        assert "pytest" in found.owner

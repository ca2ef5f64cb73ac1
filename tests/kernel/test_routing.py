"""The guard and TPROXY's routing in a real kernel: what is forwarded, and what is left behind."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.errors import KernelError
from egressproxy.kernel.marks import JUDGED, TPROXY
from egressproxy.kernel.netlink import Netlink
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.routing import (
    PREFERENCE,
    RoutingState,
    ensure_guard,
    ensure_tproxy,
    remove_routing,
    remove_tproxy,
    routing_state,
)
from egressproxy.kernel.sockets import listen
from egressproxy.kernel.sysctls import ensure_sysctls
from tests.kernel.one_nic import CLIENT, SERVER, OneNic, one_nic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.namespaces import Namespace

pytestmark = pytest.mark.netns

TABLE: Final = f"""
table inet egressproxy {{
    chain prerouting {{
        type filter hook prerouting priority mangle; policy accept;
        fib daddr type local accept
        ct state invalid drop
        tcp dport 443 meta nfproto ipv4 tproxy ip to :15002 meta mark set meta mark | {TPROXY} accept
        tcp dport 443 meta nfproto ipv6 tproxy ip6 to :15002 meta mark set meta mark | {TPROXY} accept
        meta mark set meta mark | {JUDGED}
    }}
}}
"""  # noqa: E501 - one rule a line


@pytest.fixture
def net(tmp_path: Path) -> Iterator[OneNic]:
    with one_nic(tmp_path) as built:
        yield built


@pytest.fixture
def up(net: OneNic, tmp_path: Path) -> OneNic:
    """A gateway in which a table marks what it has seen, and everything else is in place."""
    with net.hub.entered():
        ensure_guard()
        Nft().apply(TABLE)
        ensure_sysctls(tmp_path / "state.json")
    return net


def rules(hub: Namespace) -> str:
    """All rules and the routes of all tables, as people see them.

    Without the kernel's own routes: those of a link that has just come up are still arriving.
    """
    listed = [
        hub.run("ip", family, *what)
        for family in ("-4", "-6")
        for what in (("rule", "list"), ("route", "show", "table", "all"))
    ]
    lines = "".join(listed).splitlines()
    return "\n".join(line for line in lines if "proto kernel" not in line)


@pytest.mark.parametrize("version", [4, 6])
def test_without_its_table_the_gateway_forwards_nothing(up: OneNic, version: int) -> None:
    assert up.forwards(version)
    up.hub.run("nft", "flush", "ruleset")
    assert not up.forwards(version)
    with up.hub.entered():
        Nft().apply(TABLE)
    assert up.forwards(version)


@pytest.mark.parametrize("version", [4, 6])
def test_without_the_guard_a_flushed_table_would_forward(up: OneNic, version: int) -> None:
    """So that the test above proves something."""
    up.hub.run("nft", "flush", "ruleset")
    with up.hub.entered():
        remove_routing()
    assert up.forwards(version)


@pytest.mark.parametrize("rp_filter", ["0", "1", "2"])
def test_rp_filter_of_any_kind_lets_judged_packets_pass(up: OneNic, rp_filter: str) -> None:
    for where in ("all", "eth0"):
        up.sysctl(f"net/ipv4/conf/{where}/rp_filter", rp_filter)
    with up.hub.entered():
        ensure_tproxy()  # a local route in a table of its own: the kernel looks more closely
    assert up.forwards(4)
    up.hub.run("nft", "flush", "ruleset")
    assert not up.forwards(4)


@pytest.mark.parametrize("rp_filter", ["0", "1", "2"])
@pytest.mark.parametrize("version", [4, 6])
def test_tproxy_is_delivered_here(up: OneNic, version: int, rp_filter: str) -> None:
    for where in ("all", "eth0"):
        up.sysctl(f"net/ipv4/conf/{where}/rp_filter", rp_filter)
    with up.hub.entered():
        ensure_tproxy()
        listener = listen("::", 15002, keepalive_s=60, transparent=True)
    with listener:
        listener.settimeout(5)
        with up.client.connect(SERVER[version], 443, timeout_s=5) as client:
            accepted, peer = listener.accept()
            with accepted:
                assert accepted.getsockname()[0].removeprefix("::ffff:") == SERVER[version]
                assert accepted.getsockname()[1] == 443
                assert peer[0].removeprefix("::ffff:") == CLIENT[version]
                accepted.sendall(b"hello")
                assert client.recv(10) == b"hello"


def test_everything_of_ours_goes_and_nothing_else(net: OneNic) -> None:
    net.hub.run("ip", "rule", "add", "pref", "50", "from", "192.0.2.7", "lookup", "main")
    net.hub.run("ip", "-6", "rule", "add", "pref", "103", "from", "2001:db8::/32", "blackhole")
    net.hub.run("ip", "route", "add", "local", "192.0.2.9", "dev", "lo", "table", "10101")
    before = rules(net.hub)
    with net.hub.entered():
        for _ in range(2):
            ensure_guard()
            ensure_tproxy()
        assert rules(net.hub).count("proto 101") == 12
        assert remove_routing()
        assert rules(net.hub) == before
        assert not remove_routing()
    assert rules(net.hub) == before


def test_state_says_what_is_there(net: OneNic) -> None:
    with net.hub.entered():
        assert routing_state() == RoutingState()
        ensure_guard()
        assert routing_state() == RoutingState(guard=True)
        ensure_tproxy()
        assert routing_state() == RoutingState(guard=True, tproxy=True)
        assert remove_tproxy()
        assert not remove_tproxy()
        assert routing_state() == RoutingState(guard=True)
        ensure_tproxy()
        net.hub.run("ip", "-6", "route", "flush", "table", "10101")
        assert routing_state() == RoutingState(guard=True)
        net.hub.run("ip", "-6", "rule", "del", "pref", str(PREFERENCE + 3))
        assert routing_state() == RoutingState()
        ensure_guard()
        ensure_tproxy()
        assert routing_state() == RoutingState(guard=True, tproxy=True)


AHEAD: Final = {
    "another table": (
        "-4",
        "pref 50 from 10.97.0.0/24 lookup main",
        "ip rule 50: from 10.97.0.0/24 lookup 254",
    ),
    "of one interface": (
        "-6",
        "pref 9 iif eth0 lookup 7",
        "ip -6 rule 9: from all iif eth0 lookup 7",
    ),
    "a jump over the guard": (
        "-4",
        "pref 50 goto 32766",
        "ip rule 50: from all goto 32766",
    ),
    "in the midst of the guard": (
        "-4",
        "pref 102 from 10.97.0.0/24 lookup main",
        "ip rule 102: from 10.97.0.0/24 lookup 254",
    ),
    "of this machine's own": ("-4", "pref 50 iif lo lookup 7", ""),
    "one that blocks": ("-4", "pref 50 from 10.97.0.9 blackhole", ""),
    "behind the guard": ("-4", "pref 200 from 10.97.0.9 lookup 7", ""),
}


@pytest.mark.parametrize("case", AHEAD)
def test_rules_that_come_before_the_guard_are_told(net: OneNic, case: str) -> None:
    family, rule, told = AHEAD[case]
    net.hub.run("ip", family, "rule", "add", *rule.split())
    with net.hub.entered():
        ensure_guard()
        assert routing_state().ahead == ((told,) if told else ())


@pytest.mark.parametrize("steps", range(13))
def test_a_crash_between_any_two_steps_leaves_what_can_be_finished_or_removed(
    net: OneNic, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rules(net.hub)
    with net.hub.entered():
        with _crash_after(steps, monkeypatch):
            ensure_guard()
            ensure_tproxy()
        halfway = rules(net.hub)
        with _crash_after(3, monkeypatch):
            remove_routing()
        remove_routing()
        assert rules(net.hub) == before
        ensure_guard()
        ensure_tproxy()
        assert routing_state() == RoutingState(guard=True, tproxy=True)
        remove_routing()
        assert rules(net.hub) == before
    assert halfway.count("proto 101") == min(steps, 12)


class _Crash(BaseException):
    pass


@contextmanager
def _crash_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the block after so many changes of the kernel's state."""
    remaining = iter(range(steps))
    request = Netlink.request

    def counted(self: Netlink, type_: int, flags: int, payload: bytes) -> None:
        if next(remaining, None) is None:
            raise _Crash
        request(self, type_, flags, payload)

    with monkeypatch.context() as patch, suppress(_Crash):
        patch.setattr(Netlink, "request", counted)
        yield


def test_this_machines_own_traffic_is_never_stopped_meanwhile(
    net: OneNic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each single step, of putting in place and of taking away."""
    request, asked = Netlink.request, []

    def looking(self: Netlink, type_: int, flags: int, payload: bytes) -> None:
        request(self, type_, flags, payload)
        asked.append([net.forwards(version) for version in (4, 6)])

    monkeypatch.setattr(Netlink, "request", looking)
    with net.hub.entered():
        ensure_guard()
        ensure_tproxy()
        remove_routing()
    assert len(asked) == 24


REFUSALS: Final = {
    "no capability": (errno.EPERM, "permission", "run it as root"),
    "no policy routing": (errno.EOPNOTSUPP, "kernel", "CONFIG_IP_MULTIPLE_TABLES"),
    "anything else": (errno.ENOMEM, "kernel", ""),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_the_kernel_refuses_is_told(
    net: OneNic, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, code, hint = REFUSALS[case]

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Netlink, "request", refuse)
    with net.hub.entered(), pytest.raises(KernelError) as caught:
        ensure_guard()
    assert caught.value.code == code
    assert hint in caught.value.hint


def test_a_kernel_without_ipv6_has_a_guard_for_ipv4(
    net: OneNic, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = Netlink.dump

    def without(self: Netlink, type_: int, payload: bytes) -> Iterator[bytes]:
        if payload[0] == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return dump(self, type_, payload)

    monkeypatch.setattr(Netlink, "dump", without)
    with net.hub.entered():
        ensure_guard()
        assert routing_state().guard
    assert "proto 101" in net.hub.run("ip", "-4", "rule")
    assert "proto 101" not in net.hub.run("ip", "-6", "rule")

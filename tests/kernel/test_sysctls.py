"""Sysctls: what is set, and that everything is afterwards as it was, in a tree and in a kernel."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.errors import KernelError
from egressproxy.kernel import sysctls
from egressproxy.kernel.host_state import read_state
from egressproxy.kernel.sysctls import (
    Difference,
    ensure_sysctls,
    restore_sysctls,
    sysctl_differences,
)
from lab.namespaces import Namespace, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

FRESH: Final = {
    "net/ipv4/ip_forward": "0",
    "net/ipv4/tcp_migrate_req": "0",
    "net/netfilter/nf_conntrack_tcp_loose": "1",
    **{
        f"net/ipv4/conf/{interface}/{name}": value
        for interface in ("all", "default", "lo", "eth0")
        for name, value in (
            ("forwarding", "0"),
            ("send_redirects", "1"),
            ("accept_redirects", "1"),
            ("accept_source_route", "1"),
            ("src_valid_mark", "0"),
        )
    },
    **{
        f"net/ipv6/conf/{interface}/{name}": value
        for interface in ("all", "default", "lo", "eth0", "eth1")
        for name, value in (("forwarding", "0"), ("accept_ra", "0" if interface == "eth1" else "1"))
    },
}


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A tree of plain files: the kernel's own side effects are not there."""
    for name, value in FRESH.items():
        path = tmp_path / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return tmp_path / "proc"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def values(proc: Path) -> dict[str, str]:
    found = (path for path in proc.rglob("*") if path.is_file())
    return {str(path.relative_to(proc)): path.read_text().strip() for path in found}


def test_what_a_gateway_needs_is_set_and_put_back(proc: Path, state: Path) -> None:
    changed = ensure_sysctls(state, proc=proc)
    assert {name: value for name, value in values(proc).items() if FRESH[name] != value} == {
        "net/ipv4/ip_forward": "1",
        "net/ipv4/tcp_migrate_req": "1",
        "net/netfilter/nf_conntrack_tcp_loose": "0",
        "net/ipv4/conf/all/accept_redirects": "0",
        "net/ipv4/conf/all/accept_source_route": "0",
        "net/ipv4/conf/all/src_valid_mark": "1",
        "net/ipv4/conf/all/send_redirects": "0",
        "net/ipv4/conf/default/send_redirects": "0",
        "net/ipv4/conf/eth0/send_redirects": "0",
        "net/ipv4/conf/lo/send_redirects": "0",
        "net/ipv6/conf/all/forwarding": "1",
        "net/ipv6/conf/default/accept_ra": "2",
        "net/ipv6/conf/eth0/accept_ra": "2",
        "net/ipv6/conf/lo/accept_ra": "2",
    }
    order = list(changed)
    assert len(order) == len(set(order)) == 14
    assert order.index("net/ipv6/conf/eth0/accept_ra") < order.index("net/ipv6/conf/all/forwarding")
    assert {"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} < set(order[-3:])
    assert set(restore_sysctls(state, proc=proc)) == set(changed)
    assert values(proc) == FRESH
    assert state.exists(), "who takes all the rest back forgets it"


def test_a_second_time_changes_and_forgets_nothing(proc: Path, state: Path) -> None:
    ensure_sysctls(state, proc=proc)
    written = state.read_bytes()
    assert ensure_sysctls(state, proc=proc) == ()
    (proc / "net/ipv4/ip_forward").write_text("0")
    assert ensure_sysctls(state, proc=proc) == ("net/ipv4/ip_forward",)
    assert state.read_bytes() == written
    restore_sysctls(state, proc=proc)
    assert values(proc) == FRESH
    assert restore_sysctls(state, proc=proc) == ()
    assert values(proc) == FRESH


@pytest.mark.parametrize("steps", range(15))
def test_a_crash_after_any_step_loses_nothing(
    proc: Path, state: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _crash_after(steps, patch)
        with pytest.raises(KeyboardInterrupt):
            _both(ensure_sysctls, state, proc)
    ensure_sysctls(state, proc=proc)
    with monkeypatch.context() as patch:
        _crash_after(steps, patch)
        with pytest.raises(KeyboardInterrupt):
            _both(restore_sysctls, state, proc)
    restore_sysctls(state, proc=proc)
    assert values(proc) == FRESH


def _both(action: object, state: Path, proc: Path) -> None:
    assert callable(action)
    action(state, proc=proc)
    raise KeyboardInterrupt


def _crash_after(steps: int, patch: pytest.MonkeyPatch) -> None:
    remaining = iter(range(steps))
    write = sysctls._write

    def counted(proc: Path, name: str, value: str) -> None:
        if next(remaining, None) is None:
            raise KeyboardInterrupt
        write(proc, name, value)

    patch.setattr(sysctls, "_write", counted)


def test_an_interface_that_comes_later_gets_what_it_would_have_begun_with(
    proc: Path, state: Path
) -> None:
    ensure_sysctls(state, proc=proc)
    for name in ("net/ipv4/conf/eth7/send_redirects", "net/ipv6/conf/eth7/accept_ra"):
        default = (proc / name.replace("eth7", "default")).read_text()
        (proc / name).parent.mkdir()
        (proc / name).write_text(default)
    (proc / "net/ipv4/ip_forward").write_text("0")
    ensure_sysctls(state, proc=proc)
    assert not any("eth7" in name for name in read_state(state).sysctls)
    restore_sysctls(state, proc=proc)
    assert values(proc) == {
        **FRESH,
        "net/ipv4/conf/eth7/send_redirects": "1",
        "net/ipv6/conf/eth7/accept_ra": "1",
    }


def test_an_interface_that_goes_is_not_missed(proc: Path, state: Path) -> None:
    ensure_sysctls(state, proc=proc)
    for path in (proc / "net/ipv6/conf/eth0").iterdir():
        path.unlink()
    restore_sysctls(state, proc=proc)
    assert values(proc) == {k: v for k, v in FRESH.items() if "ipv6/conf/eth0" not in k}


def test_optional_ones_may_be_missing(proc: Path, state: Path) -> None:
    (proc / "net/ipv4/tcp_migrate_req").unlink()
    shutil.rmtree(proc / "net/ipv6")
    assert ensure_sysctls(state, proc=proc)
    assert sysctl_differences(proc=proc) == ()
    restore_sysctls(state, proc=proc)
    assert values(proc)["net/ipv4/ip_forward"] == "0"


def test_conntracks_may_not(proc: Path, state: Path) -> None:
    (proc / "net/netfilter/nf_conntrack_tcp_loose").unlink()
    with pytest.raises(KernelError, match=r"nf_conntrack_tcp_loose.*modprobe nf_conntrack") as got:
        ensure_sysctls(state, proc=proc)
    assert got.value.code == "module"
    assert not state.exists()
    assert values(proc)["net/ipv4/ip_forward"] == "0"


def test_differences_say_what_is_and_what_has_to_be(proc: Path, state: Path) -> None:
    ensure_sysctls(state, proc=proc)
    assert sysctl_differences(proc=proc) == ()
    (proc / "net/ipv4/ip_forward").write_text("0")
    (proc / "net/ipv6/conf/eth0/accept_ra").write_text("0")  # somebody wants none at all
    (proc / "net/netfilter/nf_conntrack_tcp_loose").unlink()
    assert sysctl_differences(proc=proc) == (
        Difference("net/netfilter/nf_conntrack_tcp_loose", "0", ""),
        Difference("net/ipv4/ip_forward", "1", "0"),
    )


@pytest.mark.parametrize("action", [ensure_sysctls, restore_sysctls])
def test_what_cannot_be_set_is_told_and_forwarding_waits(
    proc: Path, state: Path, action: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    if action is restore_sysctls:
        ensure_sysctls(state, proc=proc)
    write = sysctls._write

    def refuse(proc: Path, name: str, value: str) -> None:
        if "send_redirects" in name or "eth0.1" in name:
            raise OSError(30, os.strerror(30), name)
        write(proc, name, value)

    monkeypatch.setattr(sysctls, "_write", refuse)
    with pytest.raises(KernelError) as caught:
        action(state, proc=proc)  # type: ignore[operator]  # both take the same
    assert "net.ipv4.conf.eth0.send_redirects" in str(caught.value)
    assert "net.ipv4.conf.lo.send_redirects" in str(caught.value)
    assert "docker run --sysctl" in caught.value.hint
    assert values(proc)["net/ipv4/ip_forward"] == "0"
    assert values(proc)["net/netfilter/nf_conntrack_tcp_loose"] == (
        "0" if action is ensure_sysctls else "1"
    )
    assert state.exists()
    monkeypatch.undo()
    restore_sysctls(state, proc=proc)
    assert values(proc) == FRESH


# A real kernel


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Namespace]:
    """A namespace with two interfaces; behind each is ``fe80::1``, in another."""
    with namespaces(("hub", "router"), tmp_path / "etc") as made:
        hub, router = made["hub"], made["router"]
        hub.run("nft", "add table inet t; add chain inet t c; add rule inet t c ct state new")
        for name in ("eth0", "eth0.1"):
            to = ("type", "veth", "peer", "name", name, "netns", router.name)
            hub.run("ip", "link", "add", name, *to)
            router.run("ip", "link", "set", name, "addrgenmode", "none", "up")
            router.run("ip", "address", "add", "fe80::1/64", "dev", name, "nodad")
            hub.run("ip", "link", "set", name, "up")
        yield hub


def snapshot() -> dict[str, str]:
    """Everything below /proc/sys/net that can be read and stands still."""
    found = {}
    for path in sorted(Path("/proc/sys/net").rglob("*")):
        if path.is_file() and "conntrack_count" not in path.name:
            try:
                found[str(path)] = path.read_text()
            except OSError:
                continue
    return found


@pytest.mark.netns
@pytest.mark.parametrize("forwarded", ["0", "1"])
def test_a_kernel_is_afterwards_what_it_was(hub: Namespace, state: Path, forwarded: str) -> None:
    with hub.entered():
        Path("/proc/sys/net/ipv4/ip_forward").write_text(forwarded)
        Path("/proc/sys/net/ipv4/conf/eth0/forwarding").write_text("1")
        Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").write_text("0")
        Path("/proc/sys/net/ipv6/conf/eth0.1/forwarding").write_text("1")
        before = snapshot()
        assert ensure_sysctls(state)
        assert sysctl_differences() == ()
        assert ensure_sysctls(state) == ()
        assert Path("/proc/sys/net/ipv6/conf/eth0.1/forwarding").read_text() == "1\n"
        assert snapshot() != before
        assert restore_sysctls(state)
        assert snapshot() == before
        assert restore_sysctls(state) == ()
        assert snapshot() == before


ADVERTISEMENT: Final = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)


@pytest.mark.netns
@pytest.mark.parametrize("by_hand", [False, True])
def test_the_default_route_of_a_router_advertisement_survives(
    hub: Namespace, state: Path, tmp_path: Path, by_hand: bool
) -> None:
    """Who turns on IPv6 forwarding alone loses it: else the test would prove nothing."""
    router = Namespace("router", hub.name.removesuffix("hub") + "router", tmp_path)
    with router.entered():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        index = socket.if_nametoindex("eth0")
    with sock, hub.entered():
        Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").write_text("1")
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sock.bind(("fe80::1", 0, 0, index))
        routes = ("ip", "-6", "route", "show", "default")
        for _ in range(1000):  # the kernel takes its time until a new link listens to a group
            sock.sendto(ADVERTISEMENT, ("ff02::1", 0, 0, index))
            if "via fe80::1" in hub.run(*routes):
                break
        if by_hand:
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
            assert "via fe80::1" not in hub.run(*routes)
            return
        ensure_sysctls(state)
        assert "via fe80::1" in hub.run(*routes)
        assert Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").read_text() == "2\n"
        restore_sysctls(state)
        assert Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").read_text() == "1\n"
        assert "via fe80::1" in hub.run(*routes)

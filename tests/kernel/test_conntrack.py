"""Tracked connections: any bytes, and a real kernel's UDP, TCP and ICMP entries, NAT included."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import KernelError
from egressproxy.kernel.conntrack import (
    IPS_ASSURED,
    IPS_DST_NAT,
    IPS_SEEN_REPLY,
    IPS_SRC_NAT,
    Conntrack,
    Entry,
    deletion,
    newly_denied,
    parse_entry,
)
from egressproxy.kernel.marks import FORWARDED
from egressproxy.kernel.netlink import Netlink, attribute, nested
from tests.kernel.one_nic import (
    CLIENT,
    HUB,
    HUB_OUTSIDE,
    SERVER,
    OneNic,
    one_nic,
    ping,
    tcp,
    udp,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TABLE: Final = f"""
table inet t {{
    chain prerouting {{
        type filter hook prerouting priority mangle; policy accept;
        udp dport 5300 ct mark set ct mark | {FORWARDED}
        tcp dport 5300 ct mark set ct mark | {FORWARDED}
    }}
    chain dstnat {{
        type nat hook prerouting priority dstnat; policy accept;
        udp dport 5353 redirect to :5354
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip daddr {SERVER[4]} masquerade
        ip6 daddr {SERVER[6]} masquerade
    }}
}}
"""


def direction(kind: int, family: int, *, src: str, dst: str, ports: tuple[int, int]) -> bytes:
    one = 1 if family == socket.AF_INET else 3
    return nested(
        kind,
        nested(
            1,
            attribute(one, socket.inet_pton(family, src)),
            attribute(one + 1, socket.inet_pton(family, dst)),
        ),
        nested(
            2,
            attribute(1, b"\x06"),
            attribute(2, ports[0].to_bytes(2)),
            attribute(3, ports[1].to_bytes(2)),
        ),
    )


WHOLE: Final = (
    bytes((socket.AF_INET, 0, 0, 0))
    + direction(1, socket.AF_INET, src="10.0.0.1", dst="20.0.0.1", ports=(1000, 443))
    + direction(2, socket.AF_INET, src="20.0.0.1", dst="10.9.9.9", ports=(443, 2000))
    + attribute(3, (0x18E).to_bytes(4))
    + attribute(8, (0xDEADBEEF).to_bytes(4))
    + attribute(12, (4711).to_bytes(4))
    + attribute(18, (5).to_bytes(2))
)
ENTRY: Final = Entry(
    id=4711,
    family=socket.AF_INET,
    protocol=6,
    src="10.0.0.1",
    sport=1000,
    dst="20.0.0.1",
    dport=443,
    reply_src="20.0.0.1",
    reply_sport=443,
    reply_dst="10.9.9.9",
    reply_dport=2000,
    mark=0xDEADBEEF,
    status=0x18E,
    zone=5,
)


def test_an_entry_is_read() -> None:
    assert parse_entry(WHOLE) == ENTRY


def test_other_families_are_none_of_ours() -> None:
    assert parse_entry(b"\x07\0\0\0" + WHOLE[4:]) is None


@given(st.integers(0, len(WHOLE)))
def test_a_part_of_an_entry_is_read_or_refused(end: int) -> None:
    try:
        entry = parse_entry(WHOLE[:end])
    except KernelError:
        return
    assert entry is not None
    assert entry[2:11] == ENTRY[2:11]


@given(st.binary(max_size=200), st.sampled_from((b"\x02\0\0\0", b"\x0a\0\0\0", b"")))
def test_any_bytes_are_an_entry_or_refused(data: bytes, head: bytes) -> None:
    try:
        entry = parse_entry(head + data)
    except KernelError:
        return
    assert entry is None or entry.family in (socket.AF_INET, socket.AF_INET6)


@given(st.data())
def test_a_changed_entry_is_read_or_refused(data: st.DataObject) -> None:
    changed = bytearray(WHOLE)
    for at in data.draw(st.lists(st.integers(0, len(WHOLE) - 1), max_size=4)):
        changed[at] = data.draw(st.integers(0, 255))
    try:
        parse_entry(bytes(changed))
    except KernelError:
        return


def test_a_deletion_names_the_tuple_and_the_id() -> None:
    """Read back as an entry: the reply is put in, which a deletion does not name."""
    reply = direction(2, socket.AF_INET, src="20.0.0.1", dst="10.9.9.9", ports=(443, 2000))
    read = parse_entry(deletion(ENTRY) + reply)
    assert read == ENTRY._replace(mark=0, status=0)


def test_newly_denied_are_those_that_nothing_allows() -> None:
    other = ENTRY._replace(dport=80)
    assert list(newly_denied([ENTRY, other], lambda entry: entry.dport == 443)) == [other]


# A real kernel


@pytest.fixture
def net(tmp_path: Path) -> Iterator[OneNic]:
    """Everything is forwarded and tracked, with SNAT."""
    with one_nic(tmp_path) as built:
        built.hub.run("nft", "-f", "-", stdin=TABLE)
        built.sysctl("net/ipv4/ip_forward", "1")
        built.sysctl("net/ipv6/conf/all/forwarding", "1")
        yield built


@pytest.fixture
def conntrack(net: OneNic) -> Iterator[Conntrack]:
    with net.hub.entered():
        made = Conntrack()
    with made:
        yield made


@pytest.mark.netns
@pytest.mark.parametrize("version", [4, 6])
def test_a_datagrams_entry_is_listed_and_deleted(
    net: OneNic, conntrack: Conntrack, version: int
) -> None:
    with (
        udp(net.client, CLIENT[version]) as client,
        udp(net.server, SERVER[version], 5300) as server,
    ):
        port = client.getsockname()[1]
        client.sendto(b"question", (SERVER[version], 5300))
        _, sender = server.recvfrom(100)
        assert sender[0] == HUB_OUTSIDE[version]
        server.sendto(b"answer", sender)
        assert client.recv(100) == b"answer"
        (entry,) = conntrack.entries(mark=FORWARDED, mask=FORWARDED)
        assert entry == Entry(
            id=entry.id,
            family=socket.AF_INET if version == 4 else socket.AF_INET6,
            protocol=socket.IPPROTO_UDP,
            src=CLIENT[version],
            sport=port,
            dst=SERVER[version],
            dport=5300,
            reply_src=SERVER[version],
            reply_sport=5300,
            reply_dst=HUB_OUTSIDE[version],
            reply_dport=sender[1],
            mark=FORWARDED,
            status=entry.status,
        )
        assert entry.status & IPS_SEEN_REPLY
        assert entry.status & IPS_SRC_NAT
        assert not conntrack.delete(entry._replace(id=entry.id ^ 1))
        assert list(conntrack.entries(mark=FORWARDED, mask=FORWARDED)) == [entry]
        assert conntrack.delete(entry)
        assert not conntrack.delete(entry)
        assert list(conntrack.entries(mark=FORWARDED, mask=FORWARDED)) == []


@pytest.mark.netns
@pytest.mark.parametrize("version", [4, 6])
def test_a_deleted_connection_is_dead(net: OneNic, conntrack: Conntrack, version: int) -> None:
    """With nf_conntrack_tcp_loose at 0 its next segment opens nothing anew."""
    net.sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")
    drop = ("add", "rule", "inet", "t", "prerouting", "ct", "state", "invalid", "counter", "drop")
    net.hub.run("nft", *drop)
    with tcp(net.server, SERVER[version], 5300) as server, ExitStack() as stack:
        client = stack.enter_context(net.client.connect(SERVER[version], 5300))
        accepted = stack.enter_context(server.accept()[0])
        client.sendall(b"before")
        assert accepted.recv(100) == b"before"
        (entry,) = conntrack.entries(mark=FORWARDED, mask=FORWARDED)
        assert entry.protocol == socket.IPPROTO_TCP
        assert entry.status & IPS_ASSURED
        assert (entry.sport, entry.dport) == (client.getsockname()[1], 5300)
        assert conntrack.delete(entry)
        client.sendall(b"after")
        assert list(conntrack.entries(mark=FORWARDED, mask=FORWARDED)) == []
        assert "packets 0" not in net.hub.run("nft", "list", "chain", "inet", "t", "prerouting")
        accepted.setblocking(False)
        with pytest.raises(BlockingIOError):
            accepted.recv(100)


@pytest.mark.netns
def test_all_entries_are_listed_with_nat_and_icmp(net: OneNic, conntrack: Conntrack) -> None:
    with udp(net.client, CLIENT[4]) as client, udp(net.hub, "0.0.0.0", 5354) as hub:
        client.sendto(b"x", (SERVER[4], 5353))
        hub.recv(100)
    ping(net.client, SERVER[4])
    ping(net.client, SERVER[6])
    entries = list(conntrack.entries())
    (redirected,) = [entry for entry in entries if entry.dport == 5353]
    assert redirected.status & IPS_DST_NAT
    assert (redirected.dst, redirected.reply_src) == (SERVER[4], HUB[4])
    assert redirected.reply_sport == 5354
    pings = {entry.dst: entry for entry in entries if entry.icmp_type >= 0}
    four, six = pings[SERVER[4]], pings[SERVER[6]]
    assert (four.protocol, four.icmp_type, four.icmp_code) == (socket.IPPROTO_ICMP, 8, 0)
    assert (six.protocol, six.icmp_type, six.icmp_code) == (socket.IPPROTO_ICMPV6, 128, 0)
    assert (four.sport, four.dport) == (0, 0)
    assert four.icmp_id == six.icmp_id == 0x4711
    assert conntrack.delete(four)
    assert conntrack.delete(six)
    left = list(conntrack.entries())
    assert redirected.id in {entry.id for entry in left}
    assert not {four.id, six.id} & {entry.id for entry in left}


@pytest.mark.netns
def test_several_thousand_are_listed(net: OneNic, conntrack: Conntrack) -> None:
    """More than a datagram's worth, by far."""
    with udp(net.client, CLIENT[4]) as client:
        for port in range(10_000, 13_000):
            client.sendto(b"x", (SERVER[4], port))
    ports = {entry.dport for entry in conntrack.entries()}
    assert ports >= set(range(10_000, 13_000))


REFUSALS: Final = {
    "no capability": (errno.EPERM, "permission", "it needs CAP_NET_ADMIN: run it as root"),
    "no ctnetlink": (errno.EINVAL, "module", "modprobe nf_conntrack_netlink"),
    "anything else": (errno.ENOMEM, "kernel", ""),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_the_kernel_refuses_is_told(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    number, code, hint = REFUSALS[case]

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Netlink, "dump", refuse)
    monkeypatch.setattr(Netlink, "request", refuse)
    with Conntrack() as conntrack:
        with pytest.raises(KernelError) as caught:
            list(conntrack.entries())
        assert (caught.value.code, caught.value.hint) == (code, hint)
        with pytest.raises(KernelError) as caught:
            conntrack.delete(ENTRY)
        assert (caught.value.code, caught.value.hint) == (code, hint)

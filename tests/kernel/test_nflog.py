"""The messages as the kernel makes them, cut and mangled; and a real kernel's."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import KernelError
from egressproxy.kernel import netlink
from egressproxy.kernel.nflog import MAX_PREFIX, LoggedPacket, Nflog, _cannot_bind, parse_packet
from egressproxy.kernel.packet import ICMP, ICMPV6, TCP, UDP, Packet
from lab.namespaces import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.namespaces import Namespace

PACKET = bytes.fromhex("4500003c0007000040060000") + bytes([10, 240, 0, 4, 20, 1, 2, 3])
PACKET += struct.pack("!HH", 50123, 1433) + bytes(16)
READ = Packet("10.240.0.4", "20.1.2.3", TCP, 50123, 1433)
HEADER = struct.pack("!BBH", socket.AF_INET, 0, 100)


def u32(value: int) -> bytes:
    return struct.pack("!I", value)


def logged(**fields: bytes) -> bytes:
    kinds = {"mark": 2, "indev": 4, "outdev": 5, "payload": 9, "prefix": 10, "seq": 12}
    values = {"payload": PACKET, "prefix": b"deny\0"} | fields
    return HEADER + b"".join(netlink.attribute(kinds[k], v) for k, v in values.items())


MESSAGES = {
    "least": (logged(prefix=b""), LoggedPacket("", READ)),
    "all": (
        logged(mark=u32(0x02000000), indev=u32(3), outdev=u32(4), seq=u32(9)),
        LoggedPacket("deny", READ, 0x02000000, 3, 4, 9),
    ),
    "a prefix without its end": (logged(prefix=b"audit"), LoggedPacket("audit", READ)),
    "a prefix that is no text": (
        logged(prefix=b"\xff\x1b[2J\0rest"),
        LoggedPacket("\\xff\x1b[2J", READ),
    ),
    "a long prefix": (logged(prefix=b"x" * 300), LoggedPacket("x" * MAX_PREFIX, READ)),
    "a number of another size": (
        logged(mark=b"\1", seq=b"\1\2"),
        LoggedPacket("deny", READ, 0, sequence=0),
    ),
}


@pytest.mark.parametrize(("payload", "expected"), MESSAGES.values(), ids=MESSAGES)
def test_read(payload: bytes, expected: LoggedPacket) -> None:
    assert parse_packet(payload) == expected


REFUSED = {
    "nothing": b"",
    "a header only": HEADER,
    "no packet": HEADER + netlink.attribute(10, b"deny\0"),
    "an empty packet": logged(payload=b""),
    "a packet cut in its header": logged(payload=PACKET[:19]),
    "an attribute longer than the message": logged() + struct.pack("=HH", 9, 3) + b"1234",
    "an attribute shorter than itself": logged() + struct.pack("=HH", 3, 3),
}


@pytest.mark.parametrize("payload", REFUSED.values(), ids=REFUSED)
def test_refused(payload: bytes) -> None:
    with pytest.raises(KernelError):
        parse_packet(payload)


@given(st.sampled_from(sorted(MESSAGES)), st.integers(0, 200), st.binary(max_size=60))
def test_cut_and_followed_by_garbage(case: str, length: int, garbage: bytes) -> None:
    with suppress(KernelError):
        parse_packet(MESSAGES[case][0][:length] + garbage)


@given(st.data())
def test_mangled(data: st.DataObject) -> None:
    payload = bytearray(MESSAGES["all"][0])
    places = st.integers(0, len(payload) - 1)
    for place, value in data.draw(st.dictionaries(places, st.integers(0, 255), max_size=8)).items():
        payload[place] = value
    with suppress(KernelError):
        parse_packet(bytes(payload))


class Wire:
    """What stands in for the socket: datagrams, errors, or that nothing waits."""

    def __init__(self, *events: bytes | OSError) -> None:
        self.events = list(events)
        self.sender = 0
        self.flags = 0

    def recvmsg_into(
        self, buffers: list[memoryview]
    ) -> tuple[int, list[object], int, tuple[int, int]]:
        if not self.events:
            raise BlockingIOError
        event = self.events.pop(0)
        if isinstance(event, OSError):
            raise event
        buffers[0][: len(event)] = event
        return len(event), [], self.flags, (self.sender, 0)

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def send(self, request: bytes) -> None:
        self.sent = request


def reader(*events: bytes | OSError) -> tuple[Nflog, Wire]:
    nflog = Nflog.__new__(Nflog)
    wire = Wire(*events)
    Nflog._begin(nflog, wire)  # type: ignore[arg-type]  # as much of a socket as is used
    return nflog, wire


def datagram(*payloads: bytes) -> bytes:
    return b"".join(netlink.message(0x400, 0, 0, payload) for payload in payloads)


def numbered(*numbers: int) -> bytes:
    return datagram(*(logged(seq=u32(number)) for number in numbers))


def test_several_packets_in_a_datagram_and_its_end() -> None:
    nflog, _ = reader(numbered(0, 1) + netlink.message(3, 0, 0, bytes(4)), numbered(2))
    assert [packet.sequence for packet in nflog.read(1)] == [0, 1]
    assert [packet.sequence for packet in nflog.read(8)] == [2]
    assert nflog.read(8) == []
    assert (nflog.tally.lost, nflog.tally.malformed) == (0, 0)


GAPS = {
    "none": ([0, 1, 2], 0),
    "before the first": ([5], 5),
    "between": ([0, 10], 9),
    "over the end of the numbers": ([*range(2), 2], 0),
    "again from the start": ([0, 1, 0, 1], 0),
}


@pytest.mark.parametrize(("numbers", "lost"), GAPS.values(), ids=GAPS)
def test_gaps_are_losses(numbers: list[int], lost: int) -> None:
    nflog, _ = reader(numbered(*numbers))
    assert len(nflog.read(8)) == len(numbers)
    assert nflog.tally.lost == lost


def test_numbers_wrap() -> None:
    nflog, _ = reader(numbered(0xFFFF_FFFE, 0xFFFF_FFFF, 0, 1, 3))
    nflog._expected = 0xFFFF_FFFE
    nflog.read(8)
    assert nflog.tally.lost == 1


def test_an_overrun_is_counted_and_what_is_left_is_read() -> None:
    nflog, _ = reader(numbered(0), OSError(105, "no buffer space"), numbered(4))
    assert len(nflog.read(8)) == 2
    assert (nflog.tally.overruns, nflog.tally.lost) == (1, 3)


def test_any_other_error_ends_the_batch() -> None:
    nflog, _ = reader(OSError(12, "no memory"), numbered(0))
    assert nflog.read(8) == []
    assert nflog.tally.overruns == 1
    assert len(nflog.read(8)) == 1


def test_what_cannot_be_read_is_counted_and_takes_nothing_with_it() -> None:
    bad = HEADER + netlink.attribute(12, u32(1))
    nflog, _ = reader(datagram(logged(seq=u32(0)), bad, logged(seq=u32(2))), b"\1\2\3")
    assert [packet.sequence for packet in nflog.read(8)] == [0, 2]
    assert (nflog.tally.malformed, nflog.tally.lost) == (2, 0)


def test_only_the_kernel_is_believed() -> None:
    nflog, wire = reader(numbered(0))
    wire.sender = 4711
    assert nflog.read(8) == []
    assert nflog.tally.malformed == 1


def test_a_datagram_that_was_cut_is_not_read() -> None:
    nflog, wire = reader(numbered(0))
    wire.flags = socket.MSG_TRUNC
    assert nflog.read(8) == []
    assert nflog.tally.malformed == 1


ACKNOWLEDGED = netlink.message(2, 0, 1, bytes(20))


def test_packets_that_come_before_the_acknowledgement_are_kept() -> None:
    nflog, wire = reader(numbered(0, 1), ACKNOWLEDGED, numbered(2))
    nflog._ask(b"bind")
    assert wire.sent == b"bind"
    assert [packet.sequence for packet in nflog.read(1)] == [0, 1, 2]


def test_a_refusal_has_the_kernel_s_number() -> None:
    nflog, _ = reader(netlink.message(2, 0, 1, struct.pack("=i", -1) + bytes(16)))
    with pytest.raises(PermissionError):
        nflog._ask(b"bind")


def test_no_answer_is_an_error_and_no_wait_without_end() -> None:
    nflog, _ = reader(OSError(12, "no memory"))
    with pytest.raises(OSError, match="no acknowledgement"):
        nflog._ask(b"bind")


CANNOT = {
    "capability": (errno.EPERM, "permission", "CAP_NET_ADMIN"),
    "module": (errno.EOPNOTSUPP, "module", "modprobe nfnetlink_log"),
}


@pytest.mark.parametrize(("number", "code", "fix"), CANNOT.values(), ids=CANNOT)
def test_what_is_missing_is_named(number: int, code: str, fix: str) -> None:
    error = _cannot_bind(65000, OSError(number, os.strerror(number)))
    assert error.code == code
    assert fix in error.hint


# A real kernel

RULES = """
table inet shown {
  chain out {
    type filter hook output priority 0; policy accept;
    ip protocol { tcp, udp, icmp } jump say
    ip6 nexthdr { tcp, udp, ipv6-icmp } ip6 daddr fd00:9::/64 jump say
  }
  chain say {
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    meta mark set 0x2000000 log prefix "deny" group 100 snaplen 160 queue-threshold 32 drop
  }
}
"""
V4, V6 = "198.51.100.9", "fd00:9::9"


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    with namespaces(["log"], tmp_path_factory.mktemp("etc")) as made:
        inside = made["log"]
        inside.run("ip", "addr", "add", f"{V4}/32", "dev", "lo")
        inside.run("ip", "addr", "add", f"{V6}/64", "dev", "lo", "nodad")
        inside.run("nft", "-f", "-", stdin=RULES)
        yield inside


def bound(namespace: Namespace, *, receive_buffer: int = 1 << 20) -> Nflog:
    with namespace.entered():
        return Nflog(100, receive_buffer=receive_buffer)


def await_packets(nflog: Nflog, least: int) -> list[LoggedPacket]:
    found: list[LoggedPacket] = []
    deadline = time.monotonic() + 5
    while len(found) < least and time.monotonic() < deadline:
        found += nflog.read(64)
    return found


def send(namespace: Namespace, destination: str, protocol: int, data: bytes, port: int = 0) -> int:
    """Send one packet that the rules drop; the source port."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    kind = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}.get(protocol, socket.SOCK_RAW)
    with namespace.entered():
        sock = socket.socket(family, kind, protocol)
    with closing(sock):
        sock.setblocking(False)
        if kind != socket.SOCK_RAW:
            sock.bind((destination, 0))
        if protocol == TCP:
            sock.connect_ex((destination, port))
        else:
            with suppress(PermissionError):  # the drop of one's own packet
                sock.sendto(data, (destination, port))
        return int(sock.getsockname()[1])


KINDS = {
    "tcp": (V4, TCP, b"", 1433),
    "udp": (V4, UDP, b"x", 123),
    "icmp": (V4, ICMP, bytes([8, 0]) + bytes(6), 0),
    "tcp, v6": (V6, TCP, b"", 1433),
    "udp, v6": (V6, UDP, b"x" * 1000, 123),
    "icmpv6": (V6, ICMPV6, bytes([128, 0]) + bytes(6), 0),
}


@pytest.mark.netns
@pytest.mark.parametrize("case", KINDS)
def test_real_packets(namespace: Namespace, case: str) -> None:
    destination, protocol, data, port = KINDS[case]
    with closing(bound(namespace)) as nflog:
        source = send(namespace, destination, protocol, data, port)
        (logged_packet,) = await_packets(nflog, 1)
    icmp = (data[0], 0) if protocol in (ICMP, ICMPV6) else (0, 0)
    ports = (0, 0) if protocol in (ICMP, ICMPV6) else (source, port)
    assert logged_packet.packet == Packet(destination, destination, protocol, *ports, *icmp)
    assert (logged_packet.prefix, logged_packet.mark) == ("deny", 0x02000000)
    assert (logged_packet.in_ifindex, logged_packet.out_ifindex) == (0, 1)
    assert nflog.tally.lost == 0


@pytest.mark.netns
def test_a_flood_is_bounded_in_memory_and_its_losses_are_counted_exactly(
    namespace: Namespace,
) -> None:
    sent = 20_000
    with namespace.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with closing(sock), closing(bound(namespace, receive_buffer=64 << 10)) as nflog:
        for number in range(sent):
            with suppress(PermissionError):
                sock.sendto(b"x" * 100, (V4, 1 + number % 60_000))
        read = len(await_packets(nflog, 1)) + len(nflog.read(1000))
        assert 0 < read < 5000, "the rest did not wait in the kernel"
        with suppress(PermissionError):  # the next one's number says what is missing
            sock.sendto(b"x", (V4, 9))
        read += len(await_packets(nflog, 1))
        assert nflog.tally.overruns >= 1
        assert read + nflog.tally.lost == sent + 1


@pytest.mark.netns
def test_one_reader_a_group(namespace: Namespace) -> None:
    with closing(bound(namespace)), pytest.raises(KernelError) as caught:
        bound(namespace)
    assert caught.value.code == "busy"
    bound(namespace).close()

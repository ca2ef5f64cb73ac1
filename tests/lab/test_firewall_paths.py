"""The way there and back: sizes of packets, and who may go it at all."""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.service.kernel_denies import NO_CLIENT
from lab import sites
from lab.topology import INSIDE
from tests.lab.attempts import attempt, counts, datagrams, echoes, is_open, port_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.gateway import Gateway
    from lab.namespaces import Namespace

pytestmark = pytest.mark.netns

FAMILY: Final = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
SQL: Final = sites.SQL.addresses
CONTOSO: Final = sites.CONTOSO.addresses
NARROW: Final = 1380
"""Bytes that a link on the way carries: above IPv6's least, below everybody's Ethernet."""
FORGED: Final = (552, 1280)
"""The least path MTUs that Linux lets itself be told."""
NARROWER: Final = 1300
OTHERS: Final = ("198.51.100.7", "2001:db8:7::7")
"""Of a source that is in nobody's private network."""
HEADERS: Final = (20 + 20, 40 + 20)
# linux/in.h and linux/in6.h; the socket module has not all of them.
MTU_DISCOVER: Final = ((socket.IPPROTO_IP, 10), (socket.IPPROTO_IPV6, 23))
PATH_MTU: Final = ((socket.IPPROTO_IP, 14), (socket.IPPROTO_IPV6, 24))
DO: Final = 2


@contextmanager
def _narrow_path(gateway: Gateway, family: int, address: str) -> Iterator[None]:
    """Behind the hub a link of ``NARROW`` bytes leads to an address; nobody else knows."""
    net = gateway.lab.net
    via = sites.INTERNET_GATEWAY[family]
    net.hub.run("ip", "route", "add", address, "via", via, "mtu", str(NARROW))
    try:
        yield
    finally:
        net.hub.run("ip", "route", "del", address)
        _forget_path_mtu(net.spoke)


def _forget_path_mtu(spoke: Namespace) -> None:
    for option in ("-4", "-6"):
        spoke.run("ip", option, "route", "flush", "cache")


def _unfragmented(sending: socket.socket, family: int) -> None:
    sending.setsockopt(*MTU_DISCOVER[family], DO)


def _path_mtu(sending: socket.socket, family: int) -> int:
    mtu: int = sending.getsockopt(*PATH_MTU[family])
    return mtu


def _is_told_that_it_is_too_big(sending: socket.socket) -> bool:
    try:
        sending.recv(1)
    except OSError as error:
        return error.errno == errno.EMSGSIZE
    return False


@FAMILY
def test_the_hub_tells_who_sends_too_much_at_once(firewall: Gateway, family: int) -> None:
    with (
        _narrow_path(firewall, family, CONTOSO[family]),
        datagrams(firewall.lab.net.spoke, CONTOSO[family], 1194) as sending,
    ):
        _unfragmented(sending, family)
        sending.send(bytes(NARROW))
        assert _is_told_that_it_is_too_big(sending)
        assert _path_mtu(sending, family) == NARROW
        sending.send(bytes(NARROW - HEADERS[family]))
        assert len(sending.recv(NARROW)) == NARROW - HEADERS[family]


@FAMILY
def test_the_internets_word_on_size_reaches_its_client_and_no_other(
    firewall: Gateway, family: int
) -> None:
    """An ICMP error that names a connection is given back through NAT; one that does not is not."""
    net = firewall.lab.net
    with ExitStack() as stack:
        stack.callback(_forget_path_mtu, net.spoke)
        sending = stack.enter_context(datagrams(net.spoke, CONTOSO[family], 5000))
        _unfragmented(sending, family)
        server = stack.enter_context(_bound(net.internet, CONTOSO[family], 5000))
        sending.send(b"first")
        _, hub = server.recvfrom(100)
        router = stack.enter_context(_router(net.internet, family))
        to = (hub[0], 0)
        router.sendto(_too_big(family, hub, (CONTOSO[family], 5001), FORGED[family]), to)
        router.sendto(_too_big(family, hub, (CONTOSO[family], 5000), NARROWER), to)
        assert _is_told_that_it_is_too_big(sending)
        assert _path_mtu(sending, family) == NARROWER


def _bound(namespace: Namespace, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespace.entered():
        made = socket.socket(family, socket.SOCK_DGRAM)
    made.settimeout(5)
    made.bind((address, port))
    return made


def _router(namespace: Namespace, family: int) -> socket.socket:
    """Where ICMP errors come from: not the address that was sent to."""
    number = (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)[family]
    with namespace.entered():
        made = socket.socket((socket.AF_INET, socket.AF_INET6)[family], socket.SOCK_RAW, number)
    made.bind((sites.INTERNET_GATEWAY[family], 0))
    return made


def _too_big(family: int, source: tuple[str, int], destination: tuple[str, int], mtu: int) -> bytes:
    """Fragmentation needed (RFC 792, RFC 1191), or packet too big (RFC 4443), of a UDP packet."""
    udp = struct.pack("!HHHH", source[1], destination[1], 1408, 0)
    if family:
        addresses = b"".join(
            socket.inet_pton(socket.AF_INET6, at[0]) for at in (source, destination)
        )
        quoted = struct.pack("!IHBB", 6 << 28, 1408, socket.IPPROTO_UDP, 60) + addresses + udp
        return struct.pack("!BBHI", 2, 0, 0, mtu) + quoted
    addresses = b"".join(socket.inet_aton(at[0]) for at in (source, destination))
    head = struct.pack("!BBHHHBBH", 0x45, 0, 1428, 1, 0x4000, 60, socket.IPPROTO_UDP, 0)
    head += addresses
    quoted = head[:10] + _checksum(head) + head[12:] + udp
    message = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
    return message[:2] + _checksum(message) + message[4:]


def _checksum(data: bytes) -> bytes:
    """RFC 1071, of an even number of octets."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


@FAMILY
def test_tcp_segments_fit_the_narrowest_link(firewall: Gateway, family: int) -> None:
    """Both ends are told a smaller segment size, so that a lost ICMP error harms nobody."""
    with (
        _narrow_path(firewall, family, SQL[family]),
        firewall.lab.net.spoke.connect(SQL[family], 1433) as connection,
    ):
        segment = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        assert segment <= NARROW - HEADERS[family]
        assert echoes(connection, bytes(range(256)) * 1024)


@FAMILY
@pytest.mark.parametrize("port", [1433, 443], ids=["network-rule", "application-port"])
def test_who_is_no_client_is_not_served(firewall: Gateway, family: int, port: int) -> None:
    """As the internet, if its packets were sent here: neither forwarded nor proxied."""
    other = OTHERS[family]
    mark, before = firewall.records.mark(), counts(firewall)
    with (
        _second_address(firewall, family, other),
        attempt(firewall.lab.net.spoke, SQL[family], port, source=other) as trying,
    ):
        record = firewall.record(skip=mark, src_port=port_of(trying))
        assert (record["action"], record["reason"]) == ("deny", "default_deny")
        assert (record["plane"], record["note"]) == ("network", NO_CLIENT)
        assert (record["src_ip"], record["dst_port"]) == (other, port)
        assert not is_open(trying)
    counted = counts(firewall).since(before)
    assert counted.outcomes.keys() == {"no_client"}
    assert counted.rules == {}


@contextmanager
def _second_address(gateway: Gateway, family: int, address: str) -> Iterator[None]:
    """Give the spoke an address more, which the hub knows the way to."""
    net = gateway.lab.net
    length = (32, 128)[family]
    place = (f"{address}/{length}", "dev", "eth0")
    nodad = ("nodad",) if family else ()
    net.spoke.run("ip", "address", "add", *place, "preferred_lft", "0", *nodad)
    net.hub.run("ip", "route", "add", address, "dev", INSIDE)
    try:
        yield
    finally:
        net.hub.run("ip", "route", "del", address, "dev", INSIDE)
        net.spoke.run("ip", "address", "del", *place)


@FAMILY
@pytest.mark.parametrize("is_private", [False, True], ids=["public", "private"])
def test_nobody_outside_opens_a_connection_to_the_spoke(
    firewall: Gateway, family: int, is_private: bool
) -> None:
    """Its servers are none of the policy's destinations; a public source is no client at all."""
    net = firewall.lab.net
    source = (sites.DNS_SERVER if is_private else sites.INTERNET_GATEWAY)[family]
    node = sites.SPOKE_NODE[family]
    version = (socket.AF_INET, socket.AF_INET6)[family]
    mark = firewall.records.mark()
    with ExitStack() as stack:
        listener, datagram = _servers(stack, net.spoke, node, version)
        trying = stack.enter_context(attempt(net.internet, node, port_of(listener), source=source))
        sending = stack.enter_context(
            datagrams(net.internet, node, port_of(datagram), source=source)
        )
        sending.send(b"let me in")
        for each in (trying, sending):
            record = firewall.record(skip=mark, src_port=port_of(each))
            assert (record["action"], record["reason"]) == ("deny", "default_deny")
            assert (record["src_ip"], record["dst_ip"]) == (source, node)
            assert record["note"] == ("" if is_private else NO_CLIENT)
        for server in (listener.accept, lambda: datagram.recv(100)):
            with pytest.raises(BlockingIOError):
                server()


def _servers(
    stack: ExitStack, spoke: Namespace, address: str, version: socket.AddressFamily
) -> tuple[socket.socket, socket.socket]:
    with spoke.entered():
        listener = stack.enter_context(socket.create_server((address, 0), family=version))
        datagram = stack.enter_context(socket.socket(version, socket.SOCK_DGRAM))
    datagram.bind((address, 0))
    for each in (listener, datagram):
        each.setblocking(False)
    return listener, datagram

"""Where a transparently intercepted connection was going.

``redirect`` rewrites the destination and conntrack remembers it: ``SO_ORIGINAL_DST``
(linux/netfilter_ipv4.h), ``IP6T_SO_ORIGINAL_DST`` (linux/netfilter_ipv6/ip6_tables.h).
``tproxy`` leaves it: it is the accepted socket's own address.

Addresses come out as canonical text, as ``inet_ntop`` writes them, without a zone, IPv4-mapped ones
unwrapped: a dual-stack socket shows an IPv4 client as ``::ffff:10.0.0.1``.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from typing import TypeAlias

    RawSocket: TypeAlias = socket.SocketType

SO_ORIGINAL_DST: Final = 80
IP6T_SO_ORIGINAL_DST: Final = 80
_SOCKADDR_IN: Final = 16
_SOCKADDR_IN6: Final = 28


class Endpoint(NamedTuple):
    """An address in canonical text, and a port."""

    address: str
    port: int


def plain_address(text: str) -> str:
    """The canonical form of an address text that the ``socket`` module gave."""
    if text.startswith("::ffff:") and "." in text:
        return text[7:]
    return text.partition("%")[0] if "%" in text else text


def redirected_destination(sock: RawSocket) -> Endpoint | None:
    """What conntrack says; ``None`` where the connection was not redirected (or not tracked)."""
    try:
        if sock.family == socket.AF_INET6 and "." not in sock.getsockname()[0]:
            raw = sock.getsockopt(socket.IPPROTO_IPV6, IP6T_SO_ORIGINAL_DST, _SOCKADDR_IN6)
            address = plain_address(socket.inet_ntop(socket.AF_INET6, raw[8:24]))
        else:
            raw = sock.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, _SOCKADDR_IN)
            address = socket.inet_ntoa(raw[4:8])
    except OSError:
        return None
    return Endpoint(address, raw[2] << 8 | raw[3])


def local_destination(sock: RawSocket) -> Endpoint | None:
    """The socket's own address; ``None`` where the connection is already gone."""
    try:
        name = sock.getsockname()
    except OSError:
        return None
    return Endpoint(plain_address(name[0]), name[1])

"""Where a transparently intercepted connection was going.

``redirect`` rewrites the destination and conntrack remembers it: ``SO_ORIGINAL_DST``
(linux/netfilter_ipv4.h), ``IP6T_SO_ORIGINAL_DST`` (linux/netfilter_ipv6/ip6_tables.h).
``tproxy`` leaves it: it is the accepted socket's own address.

Addresses come out as canonical text, as ``inet_ntop`` writes them, without a zone, IPv4-mapped ones
unwrapped: a dual-stack socket shows an IPv4 client as ``::ffff:10.0.0.1``.
"""

from __future__ import annotations

from functools import lru_cache
from socket import AF_INET6, IPPROTO_IP, IPPROTO_IPV6, inet_ntoa, inet_ntop
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from socket import SocketType
    from typing import TypeAlias

    RawSocket: TypeAlias = SocketType

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
    if ":" not in text:
        return text
    if text.startswith("::ffff:") and "." in text:
        return text[7:]
    return text.partition("%")[0] if "%" in text else text


def redirected_destination(sock: RawSocket) -> Endpoint | None:
    """What conntrack says; ``None`` where the connection was not redirected (or not tracked)."""
    try:
        if sock.family == AF_INET6 and "." not in sock.getsockname()[0]:
            return _endpoint(sock.getsockopt(IPPROTO_IPV6, IP6T_SO_ORIGINAL_DST, _SOCKADDR_IN6))
        return _endpoint(sock.getsockopt(IPPROTO_IP, SO_ORIGINAL_DST, _SOCKADDR_IN))
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _endpoint(sockaddr: bytes) -> Endpoint:
    """What a ``sockaddr_in`` or ``sockaddr_in6`` says; clients go where others have gone before."""
    if len(sockaddr) == _SOCKADDR_IN:
        address = inet_ntoa(sockaddr[4:8])
    else:
        address = plain_address(inet_ntop(AF_INET6, sockaddr[8:24]))
    return Endpoint(address, sockaddr[2] << 8 | sockaddr[3])


def local_destination(sock: RawSocket) -> Endpoint | None:
    """The socket's own address; ``None`` where the connection is already gone."""
    try:
        name = sock.getsockname()
    except OSError:
        return None
    return Endpoint(plain_address(name[0]), name[1])

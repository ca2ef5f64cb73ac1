"""Sockets with the options that a gateway needs: listeners, and connections to upstreams.

Linux hands a listener's TCP_NODELAY and keepalive options to the sockets it accepts, so a client's
socket costs no system call for them. Sources: socket(7), tcp(7), ip(7), ipv6(7).
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from socket import (
    IPPROTO_TCP,
    SO_MARK,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    TCP_QUICKACK,
)
from typing import Final

from egressproxy.errors import ServiceError

IPV6_TRANSPARENT: Final = 75  # linux/in6.h; no name in the socket module
_KEEPALIVE_PROBES: Final = 3
_BACKLOG: Final = 4096  # the kernel caps it at net.core.somaxconn
_NONBLOCKING_STREAM: Final = int(SOCK_STREAM) | int(SOCK_NONBLOCK)
_RESET: Final = struct.pack("ii", 1, 0)


def listen(
    address: str,
    port: int,
    *,
    keepalive_s: int,
    defer_accept_s: int = 0,
    transparent: bool = False,
) -> socket.socket:
    """A non-blocking listener with SO_REUSEPORT, one of as many as there are workers.

    Args:
        address: IPv4 or IPv6; ``::`` serves IPv4 too (dual-stack).
        port: 0 lets the kernel choose.
        keepalive_s: idle time before TCP keepalive probes, for the accepted sockets.
        defer_accept_s: hold a connection back until it has data, about this long. Not for a plane
            on which the server may speak first.
        transparent: ``IP_TRANSPARENT``, for tproxy; needs CAP_NET_ADMIN.

    Raises:
        ServiceError: the address or port cannot be had, or the capability is missing.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError as error:
        raise ServiceError(
            f"{address!r} is not an address to listen on", hint="write 0.0.0.0, :: or an address"
        ) from error
    sock = socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET)
    try:
        _prepare(sock, keepalive_s, defer_accept_s)
        if ip.version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not ip.is_unspecified)
        if transparent:
            _make_transparent(sock)
        sock.bind((str(ip), port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _cannot_listen(address, port, transparent, error) from error
    return sock


def adopt(
    sock: socket.socket, *, keepalive_s: int, defer_accept_s: int = 0, transparent: bool = False
) -> None:
    """Give a socket that listens already what ``listen`` gives its own.

    Raises:
        ServiceError: it is not transparent and cannot be made so.
    """
    sock.setblocking(False)
    _prepare_accepted(sock, keepalive_s, defer_accept_s)
    level, option = socket.IPPROTO_IP, socket.IP_TRANSPARENT
    if transparent and not sock.getsockopt(level, option):
        try:
            _make_transparent(sock)
        except OSError as error:
            raise ServiceError(
                f"a tproxy socket is not transparent: {error.strerror}",
                hint="Transparent=yes in its socket unit, or CAP_NET_ADMIN for the service",
            ) from error


def connecting(family: int, mark: int, *, speaks_at_once: bool = False) -> socket.SocketType:
    """A non-blocking TCP socket for an upstream, marked so that no rule redirects it.

    Args:
        family: ``AF_INET`` or ``AF_INET6``.
        mark: SO_MARK; 0 for none, as where ``can_mark`` says no.
        speaks_at_once: bytes to send are there already: they acknowledge the server's SYN. Where
            the server speaks first, that acknowledgement would come 200 ms late.

    Raises:
        OSError: no descriptor, no memory, or a mark without the capability.
    """
    sock = socket.SocketType(family, _NONBLOCKING_STREAM)
    sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    if speaks_at_once:
        sock.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 0)
    if mark:
        sock.setsockopt(SOL_SOCKET, SO_MARK, mark)
    return sock


def can_mark() -> bool:
    """Whether this process may set SO_MARK (CAP_NET_ADMIN, or CAP_NET_RAW since Linux 5.17).

    Without it there can be no transparent plane here that would catch a connection of ours.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1)
        except PermissionError:
            return False
    return True


def keep_alive(sock: socket.SocketType, idle_s: int) -> None:
    """Probe a silent peer after ``idle_s`` seconds, and give it up after three more thirds."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, idle_s // _KEEPALIVE_PROBES))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)


def reset_on_close(sock: socket.SocketType) -> None:
    """Let ``close`` send a RST and drop what is unsent."""
    with contextlib.suppress(OSError):  # already reset by the peer
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _prepare(sock: socket.socket, keepalive_s: int, defer_accept_s: int) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _prepare_accepted(sock, keepalive_s, defer_accept_s)


def _prepare_accepted(sock: socket.socket, keepalive_s: int, defer_accept_s: int) -> None:
    """Options that Linux hands on to the sockets it accepts."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(sock, keepalive_s)
    if defer_accept_s:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, defer_accept_s)


def _make_transparent(sock: socket.socket) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)


def _cannot_listen(address: str, port: int, transparent: bool, error: OSError) -> ServiceError:
    hints = {
        errno.EADDRINUSE: "another process has the port: ss -ltnp",
        errno.EADDRNOTAVAIL: "no interface has this address: ip addr",
        errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE",
        errno.EPERM: "tproxy needs CAP_NET_ADMIN" if transparent else "a capability is missing",
    }
    return ServiceError(
        f"cannot listen on {address} port {port}: {error.strerror}",
        hint=hints.get(error.errno or 0, ""),
    )

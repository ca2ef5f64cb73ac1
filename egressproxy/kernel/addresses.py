"""This host's own addresses, asked of the kernel by rtnetlink (rtnetlink(7), RTM_GETADDR)."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

from egressproxy.errors import ServiceError
from egressproxy.kernel.destination import plain_address

if TYPE_CHECKING:
    from collections.abc import Iterator

_RTM_NEWADDR: Final = 20
_RTM_GETADDR: Final = 22
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_REQUEST_DUMP: Final = 0x001 | 0x100 | 0x200
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_IFADDRMSG: Final = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type


def own_addresses() -> frozenset[str]:
    """Canonical texts of every address of every interface of this network namespace.

    Raises:
        ServiceError: the kernel does not answer.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
            netlink.settimeout(2)
            request = _IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            size = _HEADER.size + len(request)
            netlink.send(_HEADER.pack(size, _RTM_GETADDR, _NLM_F_REQUEST_DUMP, 1, 0) + request)
            return frozenset(_answers(netlink))
    except OSError as error:
        raise ServiceError(f"the kernel does not list our addresses: {error}") from error


def _answers(netlink: socket.socket) -> Iterator[str]:
    while True:
        data = netlink.recv(1 << 16)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, at)
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR or length < _HEADER.size:
                raise OSError("rtnetlink refused the question")
            if kind == _RTM_NEWADDR:
                yield from _address(data[at + _HEADER.size : at + length])
            at += length + 3 & ~3


def _address(message: bytes) -> Iterator[str]:
    """The local address of an RTM_NEWADDR; on a point-to-point link IFA_ADDRESS is the peer's."""
    family = message[0]
    if family not in (socket.AF_INET, socket.AF_INET6):
        return
    found: dict[int, bytes] = {}
    at = _IFADDRMSG.size
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = message[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if packed:
        yield plain_address(socket.inet_ntop(family, packed))

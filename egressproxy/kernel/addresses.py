"""This host's own addresses, asked of the kernel by rtnetlink (rtnetlink(7), RTM_GETADDR)."""

from __future__ import annotations

import socket
import struct
from typing import Final

from egressproxy.errors import KernelError, ServiceError
from egressproxy.kernel.destination import plain_address
from egressproxy.kernel.netlink import Netlink, attributes

_RTM_GETADDR: Final = 22
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFADDRMSG: Final = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index


def own_addresses() -> frozenset[str]:
    """Canonical texts of every address of every interface of this network namespace.

    Raises:
        ServiceError: the kernel does not answer.
    """
    request = _IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    try:
        with Netlink(socket.NETLINK_ROUTE, timeout_s=2) as netlink:
            found = [_address(each) for each in netlink.dump(_RTM_GETADDR, request)]
    except (OSError, KernelError) as error:
        raise ServiceError(f"the kernel does not list our addresses: {error}") from error
    return frozenset(filter(None, found))


def _address(message: bytes) -> str:
    """The local address of an RTM_NEWADDR; on a point-to-point link IFA_ADDRESS is the peer's."""
    family = message[0]
    if family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    found = attributes(message, _IFADDRMSG.size)
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    return plain_address(socket.inet_ntop(family, packed)) if packed else ""

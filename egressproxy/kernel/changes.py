"""``Changes``: the kernel tells that somebody changed our table, a routing rule, or forwarding.

Netlink multicast (netlink(7)): NFNLGRP_NFTABLES of nf_tables, rules and network configuration of
rtnetlink, in the network namespace of the calling thread. Who changed it is not asked: our own
changes are told, too. What comes is only a reason to look; it is read for the name of the table and
no further, so that other tables' traffic costs little.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from egressproxy.errors import KernelError
from egressproxy.kernel.netlink import attributes, messages
from egressproxy.kernel.nft_apply import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

_NETLINK_NETFILTER: Final = 12
_NFTABLES_GROUP: Final = 1 << (7 - 1)  # NFNLGRP_NFTABLES
_ROUTING_GROUPS: Final = (
    1 << (8 - 1)  # RTNLGRP_IPV4_RULE
    | 1 << (19 - 1)  # RTNLGRP_IPV6_RULE
    | 1 << (24 - 1)  # RTNLGRP_IPV4_NETCONF
    | 1 << (25 - 1)  # RTNLGRP_IPV6_NETCONF
)
_NFTABLES: Final = 10  # NFNL_SUBSYS_NFTABLES
_NEW_ELEMENT, _DELETED_ELEMENT, _NEW_GENERATION = 12, 14, 15
_TABLE_NAME, _SET_NAME = 1, 2  # NFTA_*_TABLE, NFTA_SET_ELEM_LIST_SET
_NFGENMSG_BYTES: Final = 4
_RECEIVE_BYTES: Final = 1 << 16
_BATCH: Final = 64
_RANGES: Final = (b"s4_", b"s6_")
"""Sets of ranges; those of names change all the time, by our own hand and by their timeouts."""


class Changes:
    """Two sockets, for one thread; a context manager.

    Raises:
        KernelError: the kernel does not tell us; with what is missing.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        try:
            self._listen(_NETLINK_NETFILTER, _NFTABLES_GROUP)
            self._listen(socket.NETLINK_ROUTE, _ROUTING_GROUPS)
        except OSError as error:
            self.close()
            hint = "it needs CAP_NET_ADMIN: run it as root" if error.errno == errno.EPERM else ""
            raise KernelError(
                f"the kernel does not tell of changes: {os.strerror(error.errno or 0)}", hint=hint
            ) from error

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        for each in self._sockets:
            each.close()

    def descriptors(self) -> tuple[int, ...]:
        """Readable while something waits to be read."""
        return tuple(each.fileno() for each in self._sockets)

    def read(self) -> bool:
        """Read what waits, a bounded batch of it; whether it may concern us."""
        concerns_us = [self._concerns_us(sock, data) for sock, data in self._datagrams()]
        return any(concerns_us)

    def _listen(self, protocol: int, groups: int) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        sock = socket.socket(socket.AF_NETLINK, kind, protocol)
        self._sockets.append(sock)
        sock.bind((0, groups))

    def _datagrams(self) -> Iterator[tuple[socket.socket, bytes]]:
        for sock in self._sockets:
            for _ in range(_BATCH):
                try:
                    data, _, flags, sender = sock.recvmsg(_RECEIVE_BYTES)
                except BlockingIOError:
                    break
                except OSError:  # ENOBUFS: some were dropped, so anything may have changed
                    yield sock, b""
                    continue
                if sender[0] == 0:
                    yield sock, b"" if flags & socket.MSG_TRUNC else data

    def _concerns_us(self, sock: socket.socket, datagram: bytes) -> bool:
        """Doubt is a reason to look."""
        if sock is not self._sockets[0] or not datagram:
            return True
        try:
            return any(_is_ours(type_, payload) for type_, _, _, payload in messages(datagram))
        except KernelError:
            return True


def _is_ours(type_: int, payload: bytes) -> bool:
    """Whether an nf_tables message is about our table, and more than a name's addresses."""
    subsystem, what = type_ >> 8, type_ & 0xFF
    if subsystem != _NFTABLES or what == _NEW_GENERATION:
        return False
    found = attributes(payload, _NFGENMSG_BYTES)
    if found.get(_TABLE_NAME, b"").rstrip(b"\0") != TABLE.encode():
        return False
    is_element = what in (_NEW_ELEMENT, _DELETED_ELEMENT)
    return not is_element or found.get(_SET_NAME, b"").startswith(_RANGES)

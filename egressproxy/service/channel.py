"""One end of the control socket between supervisor and child: whole packets with descriptors.

A ``SOCK_SEQPACKET`` socket pair keeps message borders and passes descriptors with ``SCM_RIGHTS``
(unix(7)). asyncio has no transport for that, so the socket is a reader of the loop. Sending never
blocks: what a busy peer does not take yet waits in order (the kernel queues ten packets), and the
number of waiting packets is bounded by the caller, who has at most a few unanswered orders.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from egressproxy.errors import ServiceError
from egressproxy.service.messages import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

MAX_PACKET_BYTES: Final = 128 * 1024
MAX_DESCRIPTORS: Final = 253  # SCM_MAX_FD, unix(7)
_CLOEXEC: Final = socket.MSG_CMSG_CLOEXEC


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a new control socket.

    Raises:
        ServiceError: no descriptors are left.
    """
    try:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        raise ServiceError(f"no control socket: {error}") from error


class Channel:
    """One end; ``on_message(message, descriptors)`` and ``on_closed()`` are called from the loop.

    Received descriptors belong to the receiver; none, where not all could be taken. ``on_closed``
    is called once, when the other end is gone; not after ``close``.
    """

    def __init__(
        self,
        end: socket.socket,
        on_message: Callable[[Any, list[int]], None],
        on_closed: Callable[[], None],
    ) -> None:
        end.setblocking(False)
        self._end = end
        self._on_message = on_message
        self._on_closed = on_closed
        self._waiting: deque[tuple[bytes, Sequence[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._loop.add_reader(end.fileno(), self._readable)

    def send(self, message: object, descriptors: Sequence[int] = ()) -> None:
        """Send a message with copies of the descriptors, which must stay open until it is taken.

        Raises:
            ServiceError: it cannot be a packet, or the other end is gone.
        """
        packet = encode(message)
        if len(packet) > MAX_PACKET_BYTES or len(descriptors) > MAX_DESCRIPTORS:
            raise ServiceError(
                f"a control message of {len(packet)} bytes and {len(descriptors)} descriptors",
                hint=f"at most {MAX_PACKET_BYTES} and {MAX_DESCRIPTORS}",
            )
        if not self._open:
            raise ServiceError("the control socket is closed")
        # A copy of each descriptor: the sender may close its own before a busy peer takes them.
        self._waiting.append((packet, [os.dup(fd) for fd in descriptors]))
        if len(self._waiting) == 1:
            self._writable()

    @property
    def is_sending(self) -> bool:
        """Whether something waits for the other end to take it."""
        return bool(self._waiting)

    def close(self) -> None:
        """Close this end; calling it again does nothing."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._end.fileno())
        self._loop.remove_writer(self._end.fileno())
        self._end.close()
        for _, descriptors in self._waiting:
            _close_all(descriptors)
        self._waiting.clear()

    def _writable(self) -> None:
        while self._waiting:
            packet, descriptors = self._waiting[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            try:
                self._end.sendmsg([packet], rights if descriptors else [])
            except BlockingIOError:
                self._loop.add_writer(self._end.fileno(), self._writable)
                return
            except OSError:
                self._gone()
                return
            self._waiting.popleft()
            _close_all(descriptors)
        self._loop.remove_writer(self._end.fileno())

    def _readable(self) -> None:
        room = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
        while self._open:
            try:
                packet, extras, flags, _ = self._end.recvmsg(MAX_PACKET_BYTES, room, _CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                packet, extras, flags = b"", [], 0
            if not packet:
                self._gone()
                return
            descriptors = _received_descriptors(extras)
            if flags & socket.MSG_CTRUNC:  # no numbers were left for some of them
                _close_all(descriptors)
                descriptors = []
            self._on_message(decode(packet), descriptors)

    def _gone(self) -> None:
        self.close()
        self._on_closed()


def _received_descriptors(extras: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, payload in extras:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(payload[: len(payload) - len(payload) % found.itemsize])
    return found.tolist()


def _close_all(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        os.close(fd)

"""NFLOG: the packets that nftables rules with ``log group N`` were asked to show.

Own messages of nfnetlink_log (linux/netfilter/nfnetlink_log.h, nfnetlink.h, netlink(7)), because
all of it is two structures and eight attributes. The kernel gathers packets for a tenth of a second
or ``_THRESHOLD`` of them and drops what the receive buffer cannot hold; it numbers them, so a gap
says how many were lost.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from egressproxy.errors import KernelError
from egressproxy.kernel import netlink
from egressproxy.kernel.packet import Packet, read_packet

if TYPE_CHECKING:
    from collections.abc import Iterator

NETLINK_NETFILTER: Final = 12
MAX_PREFIX: Final = 127  # NF_LOG_PREFIXLEN less its end
COPY_BYTES: Final = 160  # IPv6 header, some extension headers, ports

_ULOG: Final = 4 << 8  # NFNL_SUBSYS_ULOG
_MSG_PACKET: Final = _ULOG | 0
_MSG_CONFIG: Final = _ULOG | 1
_NLMSG_ERROR: Final = 2
_BIND: Final = 1
_COPY_PACKET: Final = 2
_SEQUENCED: Final = 1  # NFULNL_CFG_F_SEQ
_CFG_CMD, _CFG_MODE, _CFG_NLBUFSIZ, _CFG_TIMEOUT, _CFG_QTHRESH, _CFG_FLAGS = range(1, 7)
_MARK, _IN, _OUT, _PAYLOAD, _PREFIX, _SEQ = 2, 4, 5, 9, 10, 12

_NFGENMSG: Final = struct.Struct("!BBH")  # family, version, resource (the group)
_ERROR: Final = struct.Struct("=i")

_THRESHOLD: Final = 64
_TIMEOUT_HUNDREDTHS: Final = 10
_KERNEL_BUFFER: Final = 32 << 10
_RECEIVE_BUFFER: Final = 4 << 20
_DATAGRAM: Final = 128 << 10  # above what the kernel gathers (NFULNL_NLBUFSIZ_MAX)
_BIND_TIMEOUT_S: Final = 5.0
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h; no name in the socket module
_SEQ_MASK: Final = 0xFFFF_FFFF
_HALF: Final = 1 << 31
_KERNEL_PORT: Final = 0
_READERS: Final = Path(
    "/proc/thread-self/net/netfilter/nfnetlink_log"
)  # /proc/net is the main thread's


class LoggedPacket(NamedTuple):
    """A packet as a rule logged it; ``prefix`` is the rule's, interface numbers are 0 for none."""

    prefix: str
    packet: Packet
    mark: int = 0
    in_ifindex: int = 0
    out_ifindex: int = 0
    sequence: int | None = None
    """The kernel's number of it in its group, 32 bits, from 0."""


@dataclass(slots=True)
class Tally:
    """What went wrong so far, in numbers that only grow."""

    lost: int = 0
    """Packets that were logged and not received: the receive buffer was full."""
    overruns: int = 0
    """How often the kernel said so (ENOBUFS)."""
    malformed: int = 0
    """Messages that could not be read."""


class Nflog:
    """The one reader of a log group in this network namespace; needs CAP_NET_ADMIN.

    Binding waits for the kernel, which may have to load a module: construct it in a thread.

    Args:
        group: 0 to 65535, as in ``log group N``.
        copy_bytes: of each packet, from its IP header on; a rule's ``snaplen`` can only lessen it.
        receive_buffer: bytes that may wait for us in the kernel.

    Raises:
        KernelError: no capability, no module, or another process reads the group.
    """

    def __init__(
        self,
        group: int,
        *,
        copy_bytes: int = COPY_BYTES,
        receive_buffer: int = _RECEIVE_BUFFER,
    ) -> None:
        try:
            self._begin(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER))
        except OSError as error:
            raise _cannot_bind(group, error) from error
        try:
            self._socket.bind((0, 0))
            self._enlarge(receive_buffer)
            self._ask(_config(group, copy_bytes))
            self._socket.setblocking(False)
        except OSError as error:
            self._socket.close()
            raise _cannot_bind(group, error) from error
        except KernelError:
            self._socket.close()
            raise

    def _begin(self, opened: socket.socket) -> None:
        self._socket = opened
        self.tally = Tally()
        self._expected = 0
        self._early: list[LoggedPacket] = []
        self._buffer = memoryview(bytearray(_DATAGRAM))

    def fileno(self) -> int:
        """For a reader of a loop, level-triggered."""
        return self._socket.fileno()

    def read(self, datagrams: int) -> list[LoggedPacket]:
        """What has come, of at most so many datagrams (of up to 64 packets each); never waits."""
        found, self._early = self._early, []
        for _ in range(datagrams):
            data = self._receive()
            if data is None:
                break
            found += self._packets(data)
        return found

    def close(self) -> None:
        """Leave the group; idempotent."""
        self._socket.close()

    def _enlarge(self, size: int) -> None:
        with suppress(PermissionError):  # a user namespace's root may not exceed rmem_max
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
            return
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def _ask(self, request: bytes) -> None:
        """Send a request and await its acknowledgement; packets may come before it."""
        self._socket.settimeout(_BIND_TIMEOUT_S)
        self._socket.send(request)
        while True:
            data = self._receive()
            if data is None:
                raise OSError(errno.EIO, "no acknowledgement")
            for kind, _, _, payload in netlink.messages(data):
                if kind == _NLMSG_ERROR and len(payload) >= _ERROR.size:
                    (code,) = _ERROR.unpack_from(payload)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
            self._early += self._packets(data)

    def _receive(self) -> bytes | None:
        """A datagram of the kernel's; ``None`` where none waits, or the kernel dropped some."""
        while True:
            try:
                size, _, flags, sender = self._socket.recvmsg_into([self._buffer])
            except BlockingIOError:
                return None
            except TimeoutError:
                raise
            except OSError as error:
                self.tally.overruns += 1
                if error.errno == errno.ENOBUFS:
                    continue  # said once for each time the buffer was full; what it holds is next
                return None
            if sender[0] == _KERNEL_PORT and not flags & socket.MSG_TRUNC:
                return bytes(self._buffer[:size])
            self.tally.malformed += 1

    def _packets(self, data: bytes) -> Iterator[LoggedPacket]:
        try:
            for kind, _, _, payload in netlink.messages(data):
                if kind == _MSG_PACKET:
                    yield from self._packet(payload)
        except KernelError:
            self.tally.malformed += 1

    def _packet(self, payload: bytes) -> Iterator[LoggedPacket]:
        try:
            logged = parse_packet(payload)
        except KernelError:
            self.tally.malformed += 1
            self._expected = (self._expected + 1) & _SEQ_MASK
            return
        if logged.sequence is not None:
            self._follow(logged.sequence)
        yield logged

    def _follow(self, sequence: int) -> None:
        gap = (sequence - self._expected) & _SEQ_MASK
        if gap < _HALF:  # a number from before is not a loss of four billion
            self.tally.lost += gap
        self._expected = (sequence + 1) & _SEQ_MASK


def parse_packet(payload: bytes) -> LoggedPacket:
    """Read the payload of an NFULNL_MSG_PACKET.

    Raises:
        KernelError: not one, or its packet has no whole IP header.
    """
    found = netlink.attributes(payload, _NFGENMSG.size)
    packet = found.get(_PAYLOAD)
    if packet is None:
        raise KernelError("nfnetlink_log: a packet without its bytes")
    prefix = found.get(_PREFIX, b"").partition(b"\0")[0][:MAX_PREFIX]
    sequence = found.get(_SEQ)
    return LoggedPacket(
        prefix=prefix.decode("ascii", "backslashreplace"),
        packet=read_packet(packet),
        mark=_number(found.get(_MARK)),
        in_ifindex=_number(found.get(_IN)),
        out_ifindex=_number(found.get(_OUT)),
        sequence=None if sequence is None else _number(sequence),
    )


def _number(value: bytes | None) -> int:
    return int.from_bytes(value) if value is not None and len(value) == 4 else 0


def _config(group: int, copy_bytes: int) -> bytes:
    """Bind to a group and say how: in one message, so that no packet comes before it is known."""
    settings = (
        (_CFG_CMD, struct.pack("B", _BIND)),
        (_CFG_MODE, struct.pack("!IBB", copy_bytes, _COPY_PACKET, 0)),
        (_CFG_NLBUFSIZ, struct.pack("!I", _KERNEL_BUFFER)),
        (_CFG_TIMEOUT, struct.pack("!I", _TIMEOUT_HUNDREDTHS)),
        (_CFG_QTHRESH, struct.pack("!I", _THRESHOLD)),
        (_CFG_FLAGS, struct.pack("!H", _SEQUENCED)),
    )
    body = b"".join(netlink.attribute(kind, value) for kind, value in settings)
    header = _NFGENMSG.pack(socket.AF_UNSPEC, 0, group)
    return netlink.message(_MSG_CONFIG, netlink.NLM_F_REQUEST | netlink.NLM_F_ACK, 1, header + body)


def _cannot_bind(group: int, error: OSError) -> KernelError:
    code, hint = "module", "the kernel's part is missing: modprobe nfnetlink_log"
    if error.errno == errno.EPERM:  # also where the group is another socket's
        code, hint = "permission", "it needs CAP_NET_ADMIN"
        if _has_reader(group):
            code, hint = "busy", f"another process reads it, see {_READERS}"
    return KernelError(
        f"the kernel's log group {group} cannot be read: {error.strerror or error}",
        hint=hint,
        code=code,
    )


def _has_reader(group: int) -> bool:
    """Whether the group is taken; only root is told."""
    try:
        lines = _READERS.read_text().splitlines()
    except OSError:
        return False
    return any(line.split()[:1] == [str(group)] for line in lines)

"""Netlink: messages built, sent to the kernel and taken apart with every length checked.

A socket belongs to the network namespace of the thread that made it. Sources: netlink(7),
linux/netlink.h, Documentation/userspace-api/netlink in the kernel's tree.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from egressproxy.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400
NLM_F_EXCL: Final = 0x200

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_CAPPED: Final = 0x100
_NLM_F_ACK_TLVS: Final = 0x200
_NLMSGERR_ATTR_MSG: Final = 1
_SOL_NETLINK: Final = 270
_NETLINK_EXT_ACK: Final = 11

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_ERROR: Final = struct.Struct("=i")
_KIND: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_NESTED: Final = 0x8000
_RECEIVE_BYTES: Final = 1 << 16
"""More than the kernel puts into one datagram of a dump (32 KiB)."""
_MAX_TEXT: Final = 200


class Message(NamedTuple):
    """One message without its header."""

    type: int
    flags: int
    sequence: int
    payload: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + b"\0" * (-length % 4)


def nested(kind: int, *attributes_: bytes) -> bytes:
    """An attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(attributes_))


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """The attributes from ``start`` to the end, by type; of equal ones the last.

    Raises:
        KernelError: a length goes beyond the data, or is too short to be one.
    """
    found: dict[int, bytes] = {}
    at, end = start, len(data)
    while end - at >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= length <= end - at:
            raise KernelError("netlink: an attribute's length goes beyond its message")
        found[kind & _KIND] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def message(type_: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """One message with its header."""
    return _HEADER.pack(_HEADER.size + len(payload), type_, flags, sequence, 0) + payload


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages of one datagram, each length checked before it is given.

    Raises:
        KernelError: a length goes beyond the datagram, or is too short to be one.
    """
    at, end = 0, len(datagram)
    while at < end:
        if end - at < _HEADER.size:
            raise KernelError("netlink: a message ends within its header")
        length, type_, flags, sequence, _ = _HEADER.unpack_from(datagram, at)
        if not _HEADER.size <= length <= end - at:
            raise KernelError("netlink: a message's length goes beyond its datagram")
        yield Message(type_, flags, sequence, datagram[at + _HEADER.size : at + length])
        at += (length + 3) & ~3


class Netlink:
    """A socket for requests to one part of the kernel; a context manager, for one thread.

    Args:
        protocol: ``NETLINK_ROUTE``, ``NETLINK_NETFILTER``, …
        timeout_s: for each datagram of an answer.

    Raises:
        KernelError: this kernel has no such part, or no descriptor is left.
    """

    def __init__(self, protocol: int, *, timeout_s: float = 5.0) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        except OSError as error:
            raise KernelError(f"no netlink socket of protocol {protocol}: {error}") from error
        self._socket.settimeout(timeout_s)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._sequences = count(1)

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def request(self, type_: int, flags: int, payload: bytes) -> None:
        """Ask for something to be done and wait until it is.

        Raises:
            OSError: the kernel refused, with its number and, where it gave one, its text.
            KernelError: it did not answer, or not as netlink does.
        """
        for _ in self._ask(type_, flags | NLM_F_ACK, payload):
            pass

    def dump(self, type_: int, payload: bytes) -> Iterator[bytes]:
        """The payloads of a list; read to its end before the next request.

        Raises:
            OSError: the kernel refused.
            KernelError: it did not answer, or not as netlink does.
        """
        return self._ask(type_, NLM_F_DUMP, payload)

    def _ask(self, type_: int, flags: int, payload: bytes) -> Iterator[bytes]:
        sequence = next(self._sequences) & 0xFFFFFFFF
        self._socket.send(message(type_, flags | NLM_F_REQUEST, sequence, payload))
        while True:
            for answer in messages(self._receive()):
                if answer.sequence != sequence:
                    continue  # of a list that nobody read to its end
                if answer.type == _NLMSG_DONE:
                    _raise_refusal(answer)
                    return
                if answer.type == _NLMSG_ERROR:
                    _raise_refusal(answer)
                    return
                yield answer.payload

    def _receive(self) -> bytes:
        while True:
            try:
                data, _, flags, sender = self._socket.recvmsg(_RECEIVE_BYTES)
            except TimeoutError as error:
                raise KernelError("netlink: no answer", code="timeout") from error
            except OSError as error:
                # ENOBUFS: datagrams were dropped, so what was asked has an answer we never see.
                raise KernelError(f"netlink: {error.strerror}") from error
            if sender[0] != 0:
                continue  # a process, not the kernel
            if flags & socket.MSG_TRUNC:
                raise KernelError("netlink: an answer is larger than any should be")
            return data


def _raise_refusal(answer: Message) -> None:
    """Raise what the answer's error number says; 0, or a list's end without one, is success."""
    if len(answer.payload) < _ERROR.size:
        if answer.type == _NLMSG_ERROR:
            raise KernelError("netlink: an error without its number")
        return
    number = -_ERROR.unpack_from(answer.payload)[0]
    if number > 0:
        text = os.strerror(number) if number in errno.errorcode else f"error {number}"
        said = _said(answer)
        raise OSError(number, f"{text}: {said}" if said else text)


def _said(answer: Message) -> str:
    """The kernel's own words (NETLINK_EXT_ACK), or nothing."""
    if answer.type != _NLMSG_ERROR or not answer.flags & _NLM_F_ACK_TLVS:
        return ""
    start = _ERROR.size + _HEADER.size
    if not answer.flags & _NLM_F_CAPPED:  # the request follows in full
        if len(answer.payload) < start:
            return ""
        length = _HEADER.unpack_from(answer.payload, _ERROR.size)[0]
        start = _ERROR.size + ((length + 3) & ~3)
    text = attributes(answer.payload, start).get(_NLMSGERR_ATTR_MSG, b"")
    return text.rstrip(b"\0").decode("ascii", "replace")[:_MAX_TEXT]

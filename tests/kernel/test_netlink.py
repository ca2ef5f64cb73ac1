"""Netlink messages against each other, against garbage, and against a socket that says anything."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import KernelError
from egressproxy.kernel.netlink import (
    Message,
    Netlink,
    attribute,
    attributes,
    message,
    messages,
    nested,
)

DONE, ERROR = 3, 2
KERNEL: Final = (0, 0)
Answer: TypeAlias = tuple[bytes, int, tuple[int, int]] | OSError


@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=300)))
def test_attributes_that_are_built_are_read(wanted: dict[int, bytes]) -> None:
    data = b"".join(attribute(kind, value) for kind, value in wanted.items())
    assert len(data) % 4 == 0
    assert attributes(data) == wanted
    assert attributes(b"head" + data, 4) == wanted


def test_nested_attributes_are_read_without_their_flag() -> None:
    data = nested(2, attribute(1, b"one"), attribute(3, b""))
    assert attributes(attributes(data)[2]) == {1: b"one", 3: b""}


@given(st.binary(max_size=200), st.integers(0, 8))
def test_any_bytes_are_attributes_or_refused(data: bytes, start: int) -> None:
    try:
        found = attributes(data, start)
    except KernelError:
        return
    assert sum(map(len, found.values())) <= len(data)


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=99)), max_size=5))
def test_messages_that_are_built_are_read(wanted: list[tuple[int, bytes]]) -> None:
    parts = [message(type_, 7, 9, payload) for type_, payload in wanted]
    datagram = b"".join(part + b"\0" * (-len(part) % 4) for part in parts)
    assert list(messages(datagram)) == [Message(type_, 7, 9, body) for type_, body in wanted]


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_refused(datagram: bytes) -> None:
    try:
        found = list(messages(datagram))
    except KernelError:
        return
    assert sum(16 + len(each.payload) for each in found) <= len(datagram) + 3


BROKEN: Final[dict[str, tuple[Callable[[bytes], Iterable[object]], bytes]]] = {
    "an attribute of no length": (attributes, struct.pack("=HH", 0, 1)),
    "an attribute beyond its end": (attributes, struct.pack("=HH", 9, 1) + b"four"),
    "a message of no length": (messages, struct.pack("=IHHII", 0, 1, 0, 1, 0)),
    "a message beyond its end": (messages, struct.pack("=IHHII", 17, 1, 0, 1, 0)),
    "half a header": (messages, b"\x10\0\0\0"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_lengths_are_refused(case: str) -> None:
    read, data = BROKEN[case]
    with pytest.raises(KernelError):
        list(read(data))


class Says:
    """A socket whose answers are given; a datagram is (bytes, flags, sender)."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)

    def send(self, data: bytes) -> int:
        return len(data)

    def recvmsg(self, _: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        data, flags, sender = answer
        return data, [], flags, sender


def asked(*answers: Answer) -> list[bytes]:
    """What a dump gives when the kernel answers so."""
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        netlink._socket.close()
        netlink._socket = Says(*answers)  # type: ignore[assignment]  # what the tests are about
        try:
            return list(netlink.dump(1, b""))
        finally:
            netlink._socket = socket.socket()


def said(type_: int, payload: bytes, sequence: int = 1, flags: int = 0) -> bytes:
    data = message(type_, flags, sequence, payload)
    return data + b"\0" * (-len(data) % 4)


END: Final = said(DONE, struct.pack("=i", 0))


def test_a_list_ends_with_done_and_only_the_kernel_is_heard() -> None:
    one, two = said(20, b"one!"), said(20, b"two!")
    stale = said(20, b"old!", sequence=77)
    answers = ((said(20, b"lie!"), 0, (4711, 0)), (stale + one, 0, KERNEL), (two + END, 0, KERNEL))
    assert asked(*answers) == [b"one!", b"two!"]


REFUSALS: Final = {
    "an error number": (said(ERROR, struct.pack("=i", -errno.EEXIST)), errno.EEXIST, "File exists"),
    "an unknown number": (said(ERROR, struct.pack("=i", -4095)), 4095, "error 4095"),
    "an error at a list's end": (
        said(DONE, struct.pack("=i", -errno.EINVAL)),
        errno.EINVAL,
        "Invalid argument",
    ),
    "with the kernel's words, request capped": (
        said(
            ERROR,
            struct.pack("=i", -errno.EINVAL) + bytes(16) + attribute(1, b"no such thing\0"),
            flags=0x300,
        ),
        errno.EINVAL,
        "Invalid argument: no such thing",
    ),
    "with the kernel's words, request in full": (
        said(
            ERROR,
            struct.pack("=i", -errno.EINVAL) + message(1, 0, 1, b"1234") + attribute(1, b"no\0"),
            flags=0x200,
        ),
        errno.EINVAL,
        "Invalid argument: no",
    ),
    "with words that are cut short": (
        said(ERROR, struct.pack("=i", -errno.EINVAL) + b"1234", flags=0x200),
        errno.EINVAL,
        "Invalid argument",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_the_kernel_refuses_is_an_os_error(case: str) -> None:
    datagram, number, text = REFUSALS[case]
    with pytest.raises(OSError, match=text) as caught:
        asked((datagram, 0, KERNEL))
    assert caught.value.errno == number
    assert caught.value.strerror == text


UNHEARD: Final[dict[str, tuple[Answer, str, str]]] = {
    "no answer": (TimeoutError(), "timeout", "no answer"),
    "lost answers": (OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS)), "kernel", "buffer space"),
    "a datagram cut short": ((END, socket.MSG_TRUNC, KERNEL), "kernel", "larger"),
    "an error without its number": ((said(ERROR, b"12"), 0, KERNEL), "kernel", "its number"),
    "garbage": ((b"garbage", 0, KERNEL), "kernel", "header"),
}


@pytest.mark.parametrize("case", UNHEARD)
def test_what_cannot_be_heard_is_a_kernel_error(case: str) -> None:
    answer, code, text = UNHEARD[case]
    with pytest.raises(KernelError, match=text) as caught:
        asked(answer)
    assert caught.value.code == code


def test_a_part_that_the_kernel_does_not_have() -> None:
    with pytest.raises(KernelError, match="protocol 31"):
        Netlink(31)


def test_the_kernel_itself_answers() -> None:
    """Links by rtnetlink: the loopback is always one (RTM_GETLINK, ifinfomsg, IFLA_IFNAME)."""
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        for _ in range(2):
            names = [attributes(each, 16)[3] for each in netlink.dump(18, bytes(16))]
            assert b"lo\0" in names
        with pytest.raises(OSError, match=r"Operation not supported|Invalid argument"):
            netlink.request(250, 0, bytes(16))

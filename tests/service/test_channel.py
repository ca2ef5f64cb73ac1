"""Whole messages with descriptors over a socket pair, both ends on one loop."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from egressproxy.errors import ServiceError
from egressproxy.service.channel import MAX_PACKET_BYTES, Channel, socket_pair
from egressproxy.service.messages import Done, Failed, Status

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_blocking")]


class End:
    """A channel that remembers."""

    def __init__(self, sock: Any) -> None:
        self.heard: asyncio.Queue[tuple[Any, list[int]]] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.channel = Channel(sock, lambda *message: self.heard.put_nowait(message), self._close)

    def _close(self) -> None:
        assert not self.closed.is_set(), "told twice"
        self.closed.set()


def pair() -> tuple[End, End]:
    ours, theirs = socket_pair()
    return End(ours), End(theirs)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_messages_arrive_whole_and_in_order() -> None:
    async with asyncio.timeout(5):
        near, far = pair()
        for serial in range(200):  # many more than the kernel queues: the rest waits here
            near.channel.send(Status(serial))
        heard = [(await far.heard.get())[0] for _ in range(200)]
        assert heard == [Status(serial) for serial in range(200)]
        near.channel.close()
        far.channel.close()


async def test_descriptors_travel_and_none_leaks() -> None:
    before = open_descriptors()
    async with asyncio.timeout(5):
        near, far = pair()
        for serial in range(50):
            fd = os.memfd_create("letter")
            os.write(fd, b"%d" % serial)
            near.channel.send(Done(serial), [fd])
            os.close(fd)  # the channel keeps its own copy until it is taken
        for serial in range(50):
            message, (received,) = await far.heard.get()
            assert message == Done(serial)
            assert os.pread(received, 10, 0) == b"%d" % serial
            assert not os.get_inheritable(received)
            os.close(received)
        near.channel.close()
        far.channel.close()
    assert open_descriptors() == before


async def test_waiting_descriptors_are_closed_with_the_channel() -> None:
    before = open_descriptors()
    near, far = pair()
    fd = os.memfd_create("letter")
    for serial in range(50):
        near.channel.send(Done(serial), [fd])
    os.close(fd)
    near.channel.close()
    far.channel.close()
    assert open_descriptors() == before


async def test_the_other_end_closes() -> None:
    async with asyncio.timeout(5):
        near, far = pair()
        far.channel.close()
        await near.closed.wait()
        with pytest.raises(ServiceError, match="closed"):
            near.channel.send(Done(1))
        assert not far.closed.is_set(), "who closes is not told"


async def test_the_other_end_closes_while_messages_wait() -> None:
    async with asyncio.timeout(5):
        near, far = pair()
        for serial in range(50):
            near.channel.send(Status(serial))
        far.channel.close()
        await near.closed.wait()


async def test_a_message_too_large_is_refused() -> None:
    near, far = pair()
    with pytest.raises(ServiceError, match="control message"):
        near.channel.send(Failed(1, "x" * MAX_PACKET_BYTES))
    near.channel.close()
    far.channel.close()


async def test_descriptors_that_cannot_all_be_taken_are_none() -> None:
    """Half of a policy's descriptors is no policy, and what was taken of them must not leak."""
    async with asyncio.timeout(5):
        near, far = pair()
        letters = [os.memfd_create("letter") for _ in range(3)]
        near.channel.send(Done(1), letters)
        free = os.dup(letters[0])
        os.close(free)
        before = open_descriptors()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))  # room for one of three
        try:
            assert await far.heard.get() == (Done(1), [])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert open_descriptors() == before
        for fd in letters:
            os.close(fd)
        near.channel.close()
        far.channel.close()

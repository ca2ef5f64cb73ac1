"""The pipe is emptied by whole lines, within bounds, to its end."""

from __future__ import annotations

import os
import select
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressproxy.observe.tee import Tee, recorder_pipe
from egressproxy.service.channel import socket_pair
from egressproxy.service.inbox import Inbox
from egressproxy.service.messages import encode
from egressproxy.service.recorder_messages import RuleHitsNote
from tests.service.running import poll

if TYPE_CHECKING:
    from collections.abc import Iterator


class Bench:
    """An inbox, the ends that fill it, and the thread that it reads in."""

    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self.reader, self.writer = recorder_pipe()
        self.ours, theirs = socket_pair()
        theirs.setblocking(False)
        self.theirs = theirs
        self.inbox = Inbox(self.reader, theirs, max_bytes)
        self.thread = threading.Thread(target=self.inbox.fill)

    def write(self, data: bytes) -> None:
        os.write(self.writer, data)

    def end(self) -> None:
        os.close(self.writer)
        self.writer = -1

    def finish(self) -> None:
        if self.writer >= 0:
            self.end()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.ours.close()
        self.theirs.close()
        os.close(self.reader)

    def all_lines(self) -> list[bytes]:
        """What is taken until the end."""
        found: list[bytes] = []
        while not self.inbox.has_ended:
            self.inbox.wait(5)
            content = self.inbox.take()
            found += content.lines if content else []
        return found


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.finish()


def test_lines_and_notes_in_their_order_until_the_end(bench: Bench) -> None:
    bench.thread.start()
    bench.write(b"one\ntw")
    bench.inbox.wait(5)
    content = bench.inbox.take()
    assert content is not None
    assert content.lines == [b"one\n"]
    assert bench.inbox.take() is None, "half a line is not there yet"
    bench.ours.send(encode(RuleHitsNote({"r": 1}, 2.0)))
    poll("the note", lambda: bench.inbox._notes)
    content = bench.inbox.take()
    assert content is not None
    assert content.notes == [RuleHitsNote({"r": 1}, 2.0)]
    bench.write(b"o\nthree\nhalf")
    bench.end()
    assert bench.all_lines() == [b"two\n", b"three\n"]
    assert bench.inbox.has_ended


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 1500), min_size=1, max_size=60), st.integers(0, 200))
def test_any_cut_of_the_stream_gives_the_same_lines(cuts: list[int], size: int) -> None:
    lines = [b"%d" % number + b"x" * (number * size % 997) + b"\n" for number in range(80)]
    stream = b"".join(lines)
    bench = Bench()
    bench.thread.start()
    place = 0
    while place < len(stream):
        for cut in cuts:
            bench.write(stream[place : place + cut])
            place += cut
    bench.end()
    assert bench.all_lines() == lines
    bench.finish()


def test_beyond_its_bound_nothing_is_read_and_the_writer_drops() -> None:
    bench = Bench(max_bytes=100_000)
    tee, line = Tee(os.dup(bench.writer)), b"x" * 999 + b"\n"
    bench.thread.start()
    dropped = written = 0
    deadline = time.monotonic() + 10
    while not dropped and time.monotonic() < deadline:
        dropped += tee.write(line * 100)
        written += 100
    assert dropped
    assert bench.inbox._bytes < 100_000 + (1 << 20)
    tee.close()
    bench.end()
    assert len(bench.all_lines()) == written - dropped
    bench.finish()


def test_told_to_stop_it_reads_what_is_there(bench: Bench) -> None:
    bench.thread.start()
    bench.write(b"one\n")
    bench.inbox.stop()
    bench.write(b"two\n")
    bench.thread.join(10)
    assert not bench.thread.is_alive(), "though the pipe has a writer still"
    assert bench.all_lines() == [b"one\n", b"two\n"]


def test_the_end_of_the_socket_alone_ends_nothing(bench: Bench) -> None:
    bench.thread.start()
    bench.ours.close()
    bench.write(b"one\n")
    bench.inbox.wait(5)
    poll("read", lambda: bench.inbox._chunks)
    bench.end()
    assert bench.all_lines() == [b"one\n"]


def test_a_packet_that_is_no_note_is_told_and_left_out(bench: Bench) -> None:
    bench.thread.start()
    bench.ours.send(b"\x80garbage")
    bench.ours.send(encode(RuleHitsNote({}, 1.0)))
    poll("the note", lambda: bench.inbox._notes)
    content = bench.inbox.take()
    assert content is not None
    assert content.notes == [RuleHitsNote({}, 1.0)]


def test_a_line_without_end_is_not_kept(bench: Bench) -> None:
    bench.thread.start()
    for _ in range(20):
        bench.write(b"y" * 4096)
        poll("read", lambda: not _readable(bench.reader))
    bench.write(b"\nnext\n")
    bench.end()
    *_, last = bench.all_lines()
    assert last == b"next\n"
    assert len(bench.inbox._rest) <= 4096


def test_waiting_ends_in_time(bench: Bench) -> None:
    bench.thread.start()
    before = time.monotonic()
    bench.inbox.wait(0.05)
    bench.inbox.linger(5.0)  # there is nothing, so nothing to linger for
    assert time.monotonic() - before < 2


def _readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])

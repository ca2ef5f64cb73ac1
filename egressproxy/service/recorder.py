"""The recorder: ``python -m egressproxy.service.recorder PIPE CONTROL COUNTERS``, by a supervisor.

It reads the record log's lines from the pipe that all workers and the supervisor write to, stores
them for review, a batch a transaction, and exports them. One thread does nothing but empty the
pipe, because writers drop what does not fit; the other reads lines, hands them on and stores. It
ends when the pipe and the control socket have ended, or on SIGTERM, which the kernel sends when the
supervisor dies (its workers die then, too): in both cases after the last line is stored.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from egressproxy.errors import ServiceError, StoreError
from egressproxy.observe.cells import ReviewCount
from egressproxy.observe.counters import Counters
from egressproxy.observe.read import read_line
from egressproxy.review.bounds import Bounds
from egressproxy.review.reload_reports import reload_reports
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer
from egressproxy.service.channel import MAX_PACKET_BYTES
from egressproxy.service.child import end_with_parent
from egressproxy.service.exporting import Exports
from egressproxy.service.inbox import Inbox
from egressproxy.service.journal import configure_journal, journal
from egressproxy.service.keeping import Keeper, NoStore
from egressproxy.service.messages import decode, encode
from egressproxy.service.recorder_messages import Opened, RecorderSpec, Refused, ReopenNote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.observe.record import FlowRecord
    from egressproxy.service.keeping import ReviewCounters
    from egressproxy.service.recorder_messages import Answer, Note

NICENESS: Final = 10
OOM_SCORE: Final = 500
"""proc_pid_oom_score_adj(5): it can be started again, and no flow ends with it."""
LINGER_S: Final = 0.4
"""Records come in company: one transaction for those of so long."""
REST_S: Final = 5.0
"""At the end, for what was read and is not yet stored; the rest of it is dropped and counted."""
CLOSE_S: Final = 3.0
"""After that, for a store that fails."""
TEND_S: Final = 2.0
"""How often consumers get a turn where nothing comes."""
END_S: Final = 15
"""How long the end may take at all, where nobody is left to watch it."""
MAX_REPORTS: Final = 50
"""Of past reloads that the supervisor gets to know."""
EXIT_FAULT: Final = 70  # EX_SOFTWARE, sysexits.h
EXIT_STORE: Final = 74  # EX_IOERR
_PASSING: Final = frozenset({"store", "busy", "full"})
"""Codes of a store that may work later: its server is away, its disk is full."""
_IGNORED_SIGNALS: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Consumer(Protocol):
    """Who gets every batch besides the store."""

    def take(self, records: Sequence[FlowRecord], lines: Sequence[bytes]) -> None:
        """Take records with the line of each (newline included); must not wait, nor raise."""
        ...

    def tend(self) -> None:
        """Have a turn, every few seconds."""
        ...

    def reopen(self) -> None:
        """Open files by name again."""
        ...

    def close(self) -> None:
        """Hand on what is left, for a few seconds at most."""
        ...


class Recorder:
    """From lines to the store and the consumers.

    Args:
        inbox: what was read and is not yet recorded.
        keeper: stores, or does not.
        counters: the recorder's row.
        consumers: get each batch before it is stored.
    """

    def __init__(
        self,
        inbox: Inbox,
        keeper: Keeper | NoStore,
        counters: ReviewCounters,
        consumers: Sequence[Consumer] = (),
    ) -> None:
        self._inbox = inbox
        self._keeper = keeper
        self._counters = counters
        self._consumers = consumers

    def run(self) -> None:
        """Record until the inbox has ended."""
        while not (self._inbox.has_ended or self._is_late):
            self._inbox.wait(self._rest_s())
            self._inbox.linger(LINGER_S)
            self.turn()
        if lost := self._inbox.drop():
            self._counters.review(ReviewCount.DROPPED, lost)
            journal().error("records for the review are lost, it was behind", records=lost)
        closing = [threading.Thread(target=each.close) for each in self._consumers]
        for thread in closing:
            thread.start()
        self._keeper.close(time.monotonic() + CLOSE_S)
        for thread in closing:
            thread.join()

    def turn(self) -> None:
        """Record what has come."""
        while not self._is_late and (content := self._inbox.take()) is not None:
            for note in content.notes:
                self._note(note)
            self._record(content.lines)
            self._keeper.turn()
        self._keeper.turn()
        for consumer in self._consumers:
            consumer.tend()

    def _rest_s(self) -> float:
        rest_s = self._keeper.next_turn - time.monotonic()
        return min(rest_s, TEND_S) if self._consumers else rest_s

    def _note(self, note: Note | ReopenNote) -> None:
        if not isinstance(note, ReopenNote):
            self._keeper.note(note)
            return
        for consumer in self._consumers:
            consumer.reopen()

    @property
    def _is_late(self) -> bool:
        return self._inbox.filled_for_s > REST_S

    def _record(self, lines: Sequence[bytes]) -> None:
        records: list[FlowRecord] = []
        read: list[bytes] = []
        for line in lines:
            record = read_line(line)
            if record is not None:
                records.append(record)
                read.append(line)
        if len(records) < len(lines):
            self._counters.review(ReviewCount.UNREADABLE, len(lines) - len(records))
        if not records:
            return
        for consumer in self._consumers:
            consumer.take(records, read)
        self._keeper.take(records)


def keeper_of(spec: RecorderSpec, counters: ReviewCounters) -> Keeper | NoStore:
    """What keeps the records of a service."""
    place = spec.store
    return NoStore() if place is None else Keeper(lambda: open_writer(spec, place), counters)


def make_way() -> None:
    """Let workers have the CPU, and the memory where it runs out; where that is not forbidden."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")


def open_writer(spec: RecorderSpec, place: str) -> Writer:
    """The store of a service, ready to be written to.

    Raises:
        StoreError: it cannot be had.
    """
    bounds = Bounds(max_age_days=spec.max_age_days, max_bytes=spec.max_bytes)
    store = open_store(place)
    try:
        writer = Writer(store, gateway=spec.gateway, bounds=bounds)
        writer.note_recording(since=spec.since, allows=spec.allows)
    except BaseException:
        store.close()
        raise
    return writer


def opening(keeper: Keeper | NoStore, exports: Exports, spec: RecorderSpec) -> Answer:
    """Open exports and store for the first time, and say how that went."""
    reports: tuple[str, ...] = ()
    try:
        exports.open(is_again=spec.is_again)
        if isinstance(keeper, Keeper) and spec.store is not None:
            keeper.open()
            with open_store(spec.store, is_reader=True) as store:
                reports = reload_reports(store, gateway=spec.gateway, most=MAX_REPORTS)
    except ServiceError as error:
        return Refused(error.message, error.hint, ServiceError.code, is_final=True)
    except StoreError as error:
        return Refused(error.message, error.hint, error.code, error.code not in _PASSING)
    return Opened(reports)


def main() -> None:
    """Record what comes from the descriptors that the arguments name."""
    for number in _IGNORED_SIGNALS:  # a terminal sends them to the whole group
        signal.signal(number, signal.SIG_IGN)
    pipe, control, shared, supervisor = (int(argument) for argument in sys.argv[1:5])
    configure_journal()
    make_way()
    channel = socket.socket(fileno=control)
    inbox = Inbox(pipe, channel)
    signal.signal(signal.SIGTERM, lambda *_: inbox.stop())
    end_with_parent(supervisor, signal.SIGTERM)
    packet = channel.recv(MAX_PACKET_BYTES)
    if not packet:  # the supervisor is gone already
        sys.exit(0)
    channel.setblocking(False)
    spec: RecorderSpec = decode(packet)
    row = Counters.attach(shared, spec.workers).recorder()
    keeper = keeper_of(spec, row)
    exports = Exports(spec, row)
    answer = opening(keeper, exports, spec)
    with suppress(OSError):  # the supervisor is gone
        channel.send(encode(answer))
    if isinstance(answer, Refused):
        if answer.is_final:
            sys.exit(EXIT_STORE)
        journal().error("the review store cannot be opened, it is tried again", why=answer.message)
    recorder = Recorder(inbox, keeper, row, [exports] if spec.exports else ())
    sys.exit(run(recorder, inbox, end_s=END_S))


def run(recorder: Recorder, inbox: Inbox, *, end_s: int = 0) -> int:
    """Read in this thread, record in another; the exit code.

    Once all is read the process is ended by SIGALRM after ``end_s``, 0 for never.
    """
    faults: list[Exception] = []

    def record() -> None:
        try:
            recorder.run()
        except Exception as error:  # noqa: BLE001 - told below, and ends the process
            faults.append(error)
            inbox.stop()

    thread = threading.Thread(target=record, name="recording")
    thread.start()
    inbox.fill()
    if end_s:
        signal.alarm(end_s)
    thread.join()
    if faults:
        journal().error("recorder fault, it ends", exc_info=faults[0])
        return EXIT_FAULT
    return 0


if __name__ == "__main__":
    main()

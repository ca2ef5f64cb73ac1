"""``RecordLog``: from the path of a flow to a file or stdout without the path ever waiting.

``write`` appends to a bounded deque and, where the writer sleeps, wakes it through an eventfd; that
is all a flow pays. One thread folds, formats and writes in batches, to the sink and where there is
one to the recorder. What does not fit is dropped
and counted; what the disk refuses is kept and tried again, while the deque fills.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from egressproxy.observe.fold import Folds
from egressproxy.observe.record import to_json_line
from egressproxy.observe.sink import FileSink, Sink, StreamSink

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.observe.record import FlowRecord
    from egressproxy.observe.tee import Tee
    from egressproxy.settings import Settings

_BATCH_RECORDS: Final = 128  # formatted in one go: the engine waits for the GIL half a millisecond
_BATCH_LOOKS: Final = 512  # a flood's records are only folded, which takes a microsecond each
_LINGER_S: Final = 0.05  # records come in company: one wake, one lock and one write for all
_RETRY_S: Final = 0.5
_STDOUT: Final = 1


class LogCounters(Protocol):
    """Where the log counts; ``observe.counters.WorkerCounters`` is one."""

    def log_dropped(self, records: int) -> None:
        """Records that are lost."""
        ...

    def log_folded(self, records: int) -> None:
        """Records that are part of another's count."""
        ...

    def log_error(self) -> None:
        """A write that failed and is retried."""
        ...

    def review_dropped(self, records: int) -> None:
        """Records that the recorder could not take."""
        ...


class RecordLog:
    """Begins to write at once, in a daemon thread of its own.

    Args:
        path: a file; ``None`` is stdout.
        settings: queue length, folding window, rotation.
        counters: ``log_dropped`` is called by the thread that writes records (and at close),
            the others by the log's own.
        tee: gets every line as well, without ever being waited for; owned from here on.

    Raises:
        ServiceError: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path | None,
        settings: Settings,
        counters: LogCounters,
        tee: Tee | None = None,
    ) -> None:
        self._tee = tee
        self._sink: Sink = (
            StreamSink(_STDOUT)
            if path is None
            else FileSink(path, settings.log_rotate_bytes, settings.log_rotate_files)
        )
        self._limit = settings.log_queue_records
        self._folds = Folds(settings.fold_window_s)
        self._counters = counters
        self._queue: deque[FlowRecord] = deque()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._bell_lock = threading.Lock()
        self._ears = select.poll()
        self._ears.register(self._bell, select.POLLIN)
        self._is_asleep = False
        self._must_reopen = False
        self._closes_at: float | None = None
        self._is_abandoned = False
        self._writer = threading.Thread(target=self._run, name="record-log", daemon=True)
        self._writer.start()

    def write(self, record: FlowRecord) -> None:
        """Take a record; never blocks, never raises, drops where the queue is full or closed."""
        if len(self._queue) >= self._limit or self._closes_at is not None:
            self._counters.log_dropped(1)
            return
        self._queue.append(record)
        if self._is_asleep:
            self._is_asleep = False
            self._ring()

    def reopen(self) -> None:
        """Open the file by its name again, soon; for SIGUSR1 after a rename."""
        if self._closes_at is None:
            self._must_reopen = True
            self._ring()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is left and the open folds; what takes longer is dropped and counted."""
        if self._closes_at is not None:
            return
        self._closes_at = time.monotonic() + timeout_s
        self._ring()
        self._writer.join(timeout_s)
        if self._writer.is_alive():  # stuck in a system call; it ends when that does
            self._is_abandoned = True
            self._counters.log_dropped(len(self._queue))

    def _ring(self) -> None:
        with self._bell_lock:  # held by nobody for longer than a system call that cannot wait
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        try:
            self._write_on()
        finally:
            self._sink.close()
            if self._tee is not None:
                self._tee.close()
            with self._bell_lock:
                os.close(self._bell)
                self._bell = -1

    def _write_on(self) -> None:
        while not self._is_abandoned:
            if self._must_reopen:
                self._must_reopen = False
                if not self._sink.reopen():
                    self._counters.log_error()
            lines = self._gather()
            if lines:
                self._put(lines)
            elif self._queue:
                self._listen(0)  # lets go of the GIL between two looks
            elif self._closes_at is None:
                self._sleep()
            else:
                self._put(b"".join(map(to_json_line, self._folds.flush())))
                return

    def _gather(self) -> bytes:
        """Lines of the next records and of folds that are over; none where all were folded."""
        queue, folds, now = self._queue, self._folds, time.monotonic()
        records = folds.ended(now)
        folded = 0
        for _ in range(min(len(queue), _BATCH_LOOKS)):
            if len(records) >= _BATCH_RECORDS:
                break
            record = queue.popleft()
            kept = folds.take(record, now)
            records += kept
            folded += 0 if kept else record.count
        if folded:
            self._counters.log_folded(folded)
        return b"".join(map(to_json_line, records))

    def _put(self, lines: bytes) -> None:
        if self._tee is not None and (dropped := self._tee.write(lines)):
            self._counters.review_dropped(dropped)
        rest = self._sink.write(lines)
        while rest:
            self._counters.log_error()
            if not self._pause():
                self._counters.log_dropped(rest.count(b"\n") + len(self._queue))
                self._queue.clear()
                return
            rest = self._sink.write(rest)

    def _pause(self) -> bool:
        """Wait before another try; false where there is no time left for one."""
        wait_s = _RETRY_S
        if self._closes_at is not None:
            wait_s = min(wait_s, self._closes_at - time.monotonic()) / 2
            if wait_s < 0.01:
                return False
        self._listen(wait_s)
        return True

    def _sleep(self) -> None:
        self._is_asleep = True
        if not self._queue:  # looked at after the flag is up: nobody appends unheard
            end = self._folds.next_end
            self._listen(None if end is None else max(0.0, end - time.monotonic()))
        self._is_asleep = False
        if self._closes_at is None and self._queue:
            self._listen(_LINGER_S)

    def _listen(self, timeout_s: float | None) -> None:
        if self._ears.poll(None if timeout_s is None else timeout_s * 1000):
            os.eventfd_read(self._bell)

"""``Inbox``: what the recorder has read from its pipe and socket, and not yet recorded.

One thread fills it, another takes. When it holds ``MAX_BYTES`` nothing more is read, the pipe fills
up, and its writers drop and count. Half a line that a killed writer left, or a killed reader of the
pipe before us, ends at the next newline and is somebody else's to refuse.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.errors import ServiceError
from egressproxy.observe.record import MAX_LINE_BYTES
from egressproxy.service.channel import MAX_PACKET_BYTES
from egressproxy.service.journal import journal
from egressproxy.service.messages import decode

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from egressproxy.service.recorder_messages import Note, ReopenNote

MAX_BYTES: Final = 32 << 20
"""Some 50,000 lines."""
TAKEN_LINES: Final = 5000
READ_BYTES: Final = 1 << 20
PAUSE_S: Final = 0.02
"""Between two reads: the pipe has room for a tenth of a second of a flood."""
FULL_PAUSE_S: Final = 0.1
GRACE_S: Final = 0.5
"""After the order to stop: the supervisor's workers die at the same time as it did."""


@dataclass(frozen=True, slots=True)
class Content:
    """Whole lines with their newlines, and notes, each in the order they came."""

    lines: Sequence[bytes]
    notes: Sequence[Note | ReopenNote]


class Inbox:
    """``fill`` in one thread, ``wait``, ``linger`` and ``take`` in another.

    Args:
        pipe: read end, owned from here on.
        control: packets with notes; its end alone ends nothing.
        max_bytes: of lines kept.
    """

    def __init__(self, pipe: int, control: socket.socket, max_bytes: int = MAX_BYTES) -> None:
        self._pipe = pipe
        self._control = control
        self._max_bytes = max_bytes
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._change = threading.Condition()
        self._chunks: deque[bytes] = deque()  # each ends at a line's end
        self._notes: list[Note | ReopenNote] = []
        self._bytes = 0
        self._rest = b""
        self._is_asked_to_stop = False
        self._is_filled = False
        self._filled_at = 0.0

    @property
    def filled_for_s(self) -> float:
        """Seconds since the last thing was read; 0 before."""
        with self._change:
            return time.monotonic() - self._filled_at if self._is_filled else 0.0

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes and all is taken."""
        with self._change:
            return self._is_filled and not self._chunks and not self._notes

    def stop(self) -> None:
        """Read what is in the pipe, and no more; may be called from a signal's handler."""
        self._is_asked_to_stop = True
        os.eventfd_write(self._bell, 1)

    def fill(self) -> None:
        """Read until the pipe has ended, or until told to stop."""
        try:
            while self._listen():
                self._pause(PAUSE_S)
                if self._bytes >= self._max_bytes:
                    self._pause(FULL_PAUSE_S)
            self._read_notes()  # all were sent before the pipe ended
        finally:
            with self._change:
                self._is_filled, self._filled_at = True, time.monotonic()
                self._change.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Wait until there is something, or the end; at most so long."""
        with self._change:
            if not (self._chunks or self._notes or self._is_filled):
                self._change.wait(max(0.0, timeout_s))

    def linger(self, seconds: float) -> None:
        """Let more come, for so long, where there is something and it has not ended."""
        with self._change:
            if self._chunks and not self._is_filled:
                self._change.wait_for(lambda: self._is_filled, seconds)

    def take(self) -> Content | None:
        """The next lines, at most about ``TAKEN_LINES``, and all notes; ``None`` is nothing."""
        with self._change:
            lines: list[bytes] = []
            while self._chunks and len(lines) < TAKEN_LINES:
                chunk = self._chunks.popleft()
                self._bytes -= len(chunk)
                lines += chunk.splitlines(keepends=True)
            notes, self._notes = self._notes, []
        return Content(lines, notes) if lines or notes else None

    def drop(self) -> int:
        """Forget all lines; how many there were."""
        with self._change:
            lines = sum(chunk.count(b"\n") for chunk in self._chunks)
            self._chunks.clear()
            self._bytes = 0
        return lines

    def _listen(self) -> bool:
        """Wait for the next thing and read it; false where that was the last."""
        ears = select.poll()
        ears.register(self._pipe, select.POLLIN)
        ears.register(self._bell, 0 if self._is_asked_to_stop else select.POLLIN)
        if self._control.fileno() >= 0:
            ears.register(self._control, select.POLLIN)
        heard = {fd for fd, _ in ears.poll(GRACE_S * 1000 if self._is_asked_to_stop else None)}
        if self._control.fileno() in heard:
            self._read_notes()
        if self._pipe in heard:
            return self._read_lines()
        return bool(heard) or not self._is_asked_to_stop

    def _read_lines(self) -> bool:
        try:
            read = os.read(self._pipe, READ_BYTES)
        except BlockingIOError:
            return True
        if not read:
            return False
        lines, newline, rest = (self._rest + read).rpartition(b"\n")
        self._rest = rest[-MAX_LINE_BYTES:]
        if newline:
            with self._change:
                self._chunks.append(lines + newline)
                self._bytes += len(lines) + 1
                self._change.notify_all()
        return True

    def _read_notes(self) -> None:
        while self._read_note():
            pass

    def _read_note(self) -> bool:
        """Read a packet; whether there was one."""
        try:
            packet = self._control.recv(MAX_PACKET_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            packet = b""
        if not packet:  # the supervisor is ending or gone; the pipe says when that is over
            self._control.close()
            return False
        try:
            note = decode(packet)
        except ServiceError as error:
            journal().error("a note cannot be read", why=str(error))
            return True
        with self._change:
            self._notes.append(note)
            self._change.notify_all()
        return True

    def _pause(self, seconds: float) -> None:
        """Let the pipe fill a little; not where it is to end."""
        if not self._is_asked_to_stop:
            ears = select.poll()
            ears.register(self._bell, select.POLLIN)
            ears.poll(seconds * 1000)

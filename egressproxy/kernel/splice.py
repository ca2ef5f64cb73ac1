"""Pipes for ``splice(2)``: bulk bytes move between sockets without visiting user space.

A pipe costs two descriptors and up to ``PIPE_BYTES`` of kernel memory while it holds bytes, so only
flows in bulk own one, and no more than the pool lends at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Final, NamedTuple

PIPE_BYTES: Final = 1 << 20
"""What root may ask for; ``/proc/sys/fs/pipe-max-size`` for others."""
SPLICE_FLAGS: Final = 0x01 | 0x02  # SPLICE_F_MOVE | SPLICE_F_NONBLOCK; os has no names before 3.12


class Pipe(NamedTuple):
    """The descriptors of an empty, non-blocking pipe."""

    read: int
    write: int


class PipePool:
    """Lends at most ``limit`` pipes; keeps at most ``spare`` of those given back open."""

    def __init__(self, limit: int = 256, spare: int = 64) -> None:
        self._limit = limit
        self._keep = spare
        self._spare: list[Pipe] = []
        self.lent = 0

    def take(self) -> Pipe | None:
        """An empty pipe; ``None`` where the limit or the descriptors are used up."""
        if self.lent >= self._limit:
            return None
        pipe = self._spare.pop() if self._spare else _open_pipe()
        if pipe is not None:
            self.lent += 1
        return pipe

    def give_back(self, pipe: Pipe, *, empty: bool = True) -> None:
        """Return a pipe; one that still holds bytes is closed, as nobody else may read them."""
        self.lent -= 1
        if empty and len(self._spare) < self._keep:
            self._spare.append(pipe)
        else:
            _close_pipe(pipe)

    def close(self) -> None:
        """Close the spare pipes."""
        while self._spare:
            _close_pipe(self._spare.pop())


def _open_pipe() -> Pipe | None:
    try:
        pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return None
    # Above the user's share (pipe-user-pages-soft) it stays small, and moves bytes too.
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe.write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return pipe


def _close_pipe(pipe: Pipe) -> None:
    os.close(pipe.read)
    os.close(pipe.write)

"""``Tee``: the lines of the record log once more, into a pipe that a recorder reads.

The pipe never makes its writers wait: what does not fit is dropped, and the number of dropped lines
given back. Lines go in pieces of at most ``PIPE_BUF``, which the kernel takes whole or not at all
and never mixes, so that all workers may share one pipe (pipe(7)).
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import Final

from egressproxy.observe.sink import pieces

PIPE_BYTES: Final = 1 << 20
"""As much as the kernel lets anybody have (``fs.pipe-max-size``): some 1,500 lines."""


def recorder_pipe() -> tuple[int, int]:
    """A pipe for lines: its read and write end, neither of which ever waits.

    Raises:
        OSError: no descriptors are left.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    with suppress(OSError):  # the user's pipes are many: the usual 64 KiB must do
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reader, writer


class Tee:
    """The write end; not for several threads.

    Args:
        fd: of a pipe that does not wait; owned from here on.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, lines: bytes) -> int:
        """Write whole lines, each of at most ``PIPE_BUF``; how many were dropped."""
        written = 0
        for piece in pieces(lines):
            try:
                written += os.write(self._fd, piece)
            except OSError:  # full, or nobody will ever read it
                break
        return lines.count(b"\n", written)

    def close(self) -> None:
        """Let go; the reader sees the end when all writers have."""
        os.close(self._fd)

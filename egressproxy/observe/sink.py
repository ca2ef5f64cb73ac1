"""Where lines end up: a file that several processes append to and rotate, or a stream.

A sink takes whole lines and gives back what it could not write; it never raises for a full disk, a
closed pipe or a vanished folder, because the caller keeps the rest and comes again.

Files: every writer holds ``flock`` on the open file while it appends, and first makes sure that the
path still names that file. So one process can rename the file (as can logrotate), and each other
notices before its next line. Renames run from the oldest to the newest, the live file last: who
opens the path after that is in the new file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
from typing import TYPE_CHECKING, Final, Protocol

from egressproxy.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FILE_MODE: Final = 0o640
_OPEN_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
_CHASES: Final = 100  # rotations by others that one append follows before it gives up for now
_STREAM_WAIT_MS: Final = 100


class Sink(Protocol):
    """A destination of lines."""

    def write(self, lines: bytes) -> bytes:
        """Append whole lines; what is given back was not written."""
        ...

    def reopen(self) -> bool:
        """Let go of what was open and open it by name again; false where that failed."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class FileSink:
    """An appended file, rotated to ``FILE.1`` … ``FILE.<files>`` before it exceeds a size.

    Args:
        path: opened at once, created with mode 0640.
        rotate_bytes: 0 never rotates (leave it to logrotate and SIGUSR1).
        rotate_files: how many renamed files are kept.

    Raises:
        ServiceError: the file cannot be opened.
    """

    def __init__(self, path: Path, rotate_bytes: int, rotate_files: int) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._rotate_files = rotate_files
        try:
            self._fd = self._open()
        except OSError as error:
            raise ServiceError(
                f"the record log {path} cannot be opened: {error.strerror}",
                hint="the folder must exist and be writable by the service's user",
            ) from error

    def write(self, lines: bytes) -> bytes:
        """Append all lines or none."""
        if not lines:
            return b""
        try:
            self._lock()
            while self._is_due(len(lines)) and self._rotate():
                self._unlock()
                self._lock()  # the new file, which others may have filled meanwhile
            return self._append(lines)
        except OSError:
            return lines
        finally:
            self._unlock()

    def reopen(self) -> bool:
        """Open the path anew; the old file is kept where that fails."""
        try:
            fd = self._open()
        except OSError:
            return False
        os.close(self._fd)
        self._fd = fd
        return True

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _open(self) -> int:
        return os.open(self._path, _OPEN_FLAGS, _FILE_MODE)

    def _lock(self) -> None:
        """Lock the file that the path names now."""
        for _ in range(_CHASES):
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            if self._is_current():
                return
            if not self.reopen():  # which also drops the lock
                self._unlock()
                break
        raise OSError(f"{self._path} cannot be opened again")

    def _unlock(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _is_current(self) -> bool:
        try:
            named = self._path.stat()
        except OSError:
            return False
        ours = os.fstat(self._fd)
        return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)

    def _is_due(self, more: int) -> bool:
        ours = os.fstat(self._fd)
        return (
            self._rotate_bytes > 0
            and stat.S_ISREG(ours.st_mode)
            and ours.st_size > 0
            and ours.st_size + more > self._rotate_bytes
        )

    def _rotate(self) -> bool:
        """Rename; where the folder does not let us, the file grows on rather than lose lines."""
        try:
            for number in range(self._rotate_files - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    self._numbered(number).replace(self._numbered(number + 1))
            self._path.replace(self._numbered(1))
        except OSError:
            return False
        return True

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _append(self, lines: bytes) -> bytes:
        before = os.fstat(self._fd).st_size
        rest = lines
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            try:
                os.ftruncate(self._fd, before)  # no half line stays where another writer goes on
            except OSError:
                return rest  # not a regular file
            return lines
        return b""


class StreamSink:
    """A descriptor that others write to as well, as stdout of all workers.

    A pipe takes lines in pieces of at most ``PIPE_BUF``, which the kernel does not mix (pipe(7)).
    """

    def __init__(self, fd: int) -> None:
        self._fd = os.dup(fd)

    def write(self, lines: bytes) -> bytes:
        """Write as much as goes."""
        written = 0
        for piece in pieces(lines):
            try:
                count = os.write(self._fd, piece)
            except BlockingIOError:
                select_writable(self._fd)
                break
            except OSError:
                break
            written += count
            if count < len(piece):
                break
        return lines[written:]

    def reopen(self) -> bool:
        """Nothing to do: a stream has no name."""
        return True

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self._fd)


def select_writable(fd: int) -> None:
    """Wait a moment for a descriptor to take bytes."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll(_STREAM_WAIT_MS)


def pieces(lines: bytes) -> Iterator[bytes]:
    """Cut at line ends into pieces of at most ``PIPE_BUF``; a longer line is a piece by itself."""
    start = 0
    while start < len(lines):
        end = start + select.PIPE_BUF
        if end < len(lines):
            cut = lines.rfind(b"\n", start, end)
            end = cut + 1 if cut >= 0 else lines.find(b"\n", end) + 1 or len(lines)
        yield lines[start:end]
        start = end

"""``opened`` and ``Lines``: a record log read back line by line, plain or gzip, in bounded memory.

A file may still be written to, be damaged, or be no log at all; a line may have no end.
"""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from egressproxy.observe.read import read_line
from egressproxy.observe.record import MAX_LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN: Final = "-"
DAMAGED: Final = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading raises at the place where a compressed file is damaged or not complete."""

_GZIP: Final = b"\x1f\x8b"
_CHUNK: Final = 1 << 16


class Readable(Protocol):
    """Octets by the line."""

    def readline(self, size: int, /) -> bytes:
        """A line with its end, or as much of it as ``size`` allows."""
        ...

    def read(self, size: int, /) -> bytes:
        """At most ``size`` octets; none at the end."""
        ...


@contextmanager
def opened(path: str) -> Iterator[Readable]:
    """A log, for as long as the block runs; ``-`` is standard input, which stays open.

    Raises:
        OSError: it cannot be opened; or, while it is read, what ``DAMAGED`` has as well.
    """
    with ExitStack() as stack:
        file: io.BufferedReader[Any]
        if path == STDIN:
            file = io.BufferedReader(cast("io.RawIOBase", sys.stdin.buffer), _CHUNK)
            stack.callback(file.detach)
        else:
            file = stack.enter_context(Path(path).open("rb"))
        if file.peek(2)[:2] == _GZIP:
            yield stack.enter_context(gzip.GzipFile(fileobj=file))
        else:
            yield file


class Lines:
    """The lines of a file; ``number`` and ``offset`` are of the last one and its end."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self.number = 0
        self.offset = 0

    def next(self) -> bytes:
        """The next line, of one that is too long only its beginning; empty is the end.

        A last line without its end is one that is being written: it is given only if it is whole.
        """
        line = self._file.readline(MAX_LINE_BYTES + 1)
        length = len(line)
        if line and not line.endswith(b"\n"):
            rest = b""
            while not rest.endswith(b"\n") and (rest := self._file.readline(_CHUNK)):
                length += len(rest)
            if not rest and read_line(line) is None:
                return b""
        self.number += bool(line)
        self.offset += length
        return line

    def skip_to(self, offset: int) -> None:
        """Go on at an offset, or at the end of a file that is shorter."""
        while self.offset < offset:
            chunk = self._file.read(min(_CHUNK, offset - self.offset))
            if not chunk:
                break
            self.number += chunk.count(b"\n")
            self.offset += len(chunk)

"""``Machine``: everything the checks look at, so that a test can give them another one.

Files are read below ``root`` and bounded; programs are run by ``run``. Nothing here writes.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from egressproxy.kernel.nft_apply import search_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

MAX_FILE_BYTES: Final = 8 << 20
_PART_BYTES: Final = 65536
MAX_ENTRIES: Final = 65536
RUN_TIMEOUT_S: Final = 10.0

Run: TypeAlias = Callable[[tuple[str, ...]], str | None]


def run_program(argv: tuple[str, ...]) -> str | None:
    """What a program prints; ``None`` where it is not there, fails or does not end."""
    path = search_path(os.environ.get("PATH", ""))
    try:
        done = subprocess.run(  # noqa: S603 - the checks' own words, no shell
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=RUN_TIMEOUT_S,
            check=True,
            env={**os.environ, "PATH": path, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _parts(file: FileIO) -> Iterator[bytes]:
    """A file's content up to the bound; sysctls give nothing (ENOMEM) to one large read."""
    for _ in range(MAX_FILE_BYTES // _PART_BYTES):
        part = file.read(_PART_BYTES)
        if not part:
            return
        yield part


@dataclass(frozen=True, slots=True)
class Process:
    """A running process; ``command`` is its command line, empty where it may not be read."""

    pid: int
    command: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A view of one machine; paths are given without the leading slash, and mostly ``proc/…``.

    ``now`` is POSIX seconds.
    """

    root: Path = Path("/")
    run: Run = run_program
    now: Callable[[], float] = time.time

    def text(self, path: str) -> str:
        """A file's content; empty where it cannot be read."""
        try:
            with (self.root / path).open("rb", buffering=0) as file:
                content = b"".join(_parts(file))
        except OSError:
            return ""
        return content.decode("utf-8", "replace").strip()

    def numbers(self, path: str) -> tuple[int, ...]:
        """The whole numbers in a file; none where there is another word among them."""
        try:
            return tuple(int(word) for word in self.text(path).split())
        except ValueError:
            return ()

    def number(self, path: str) -> int | None:
        """The one number in a file, or ``None``."""
        found = self.numbers(path)
        return found[0] if len(found) == 1 else None

    def sysctl(self, name: str) -> int | None:
        """The value of ``net.ipv4.ip_forward`` and the like, or ``None``."""
        return self.number("proc/sys/" + name.replace(".", "/"))

    def entries(self, path: str) -> list[str]:
        """The names in a folder, in order; none where it cannot be read."""
        try:
            return sorted(os.listdir(self.root / path))[:MAX_ENTRIES]  # noqa: PTH208 - names alone
        except OSError:
            return []

    def processes(self) -> Iterator[Process]:
        """Every process that can be seen."""
        for name in self.entries("proc"):
            if name.isdigit():
                words = self.text(f"proc/{name}/cmdline").split("\0")
                yield Process(int(name), " ".join(words).strip())

    def sockets_of(self, pid: int) -> frozenset[int]:
        """The inodes of a process's sockets; none where it may not be looked at."""
        found = set()
        folder = self.root / "proc" / str(pid) / "fd"
        for name in self.entries(f"proc/{pid}/fd"):
            try:
                target = str((folder / name).readlink())
            except OSError:
                continue
            if target.startswith("socket:[") and target[8:-1].isdigit():
                found.add(int(target[8:-1]))
        return frozenset(found)

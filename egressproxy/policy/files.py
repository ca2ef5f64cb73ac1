"""Reads the files a policy names: bounded, regular files only, inside the root policy's folder.

An included file may come from another team: it must not be able to read the gateway's other files
by ``..`` or a symlink, nor hang it with a pipe or a device. A ConfigMap's own symlinks stay inside
the mounted folder and are followed.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from errno import EISDIR
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egressproxy.policy.problems import Marked, Report


@dataclass(slots=True)
class Folder:
    """Where a policy's files may be.

    ``looked_for`` is what was read, and what may be read one day but is not there, for the watcher.
    """

    root: Path
    allow_outside: bool = False
    looked_for: dict[Path, None] = field(default_factory=dict)

    def find(self, name: str, beside: Path, at: Marked, report: Report) -> Path | None:
        """The path of a file named in the file ``beside``, or ``None`` and a problem."""
        try:
            path = Path(os.path.normpath(beside.parent / name))
            real = path.resolve(strict=True)
            inside = real.is_relative_to(self.root.resolve(strict=True))
        except (OSError, ValueError, RuntimeError) as error:
            # RuntimeError: a symlink loop, up to Python 3.12.
            if isinstance(error, FileNotFoundError):
                self._note_missing(beside.parent / name)
            report.add(
                at,
                f"{name!r} cannot be read: {_why(error)}",
                f"paths are relative to {beside.parent}",
            )
            return None
        if not inside and not self.allow_outside:
            hint = f"move it below {self.root}, or allow it with --allow-outside"
            report.add(at, f"{name!r} is outside the policy's folder", hint)
            return None
        return path

    def read(self, path: Path, limit: int, at: Marked | None, report: Report) -> bytes | None:
        """The bytes of a file, one more than ``limit`` at most; ``None`` and a problem else."""
        self.looked_for[_absolute(path)] = None
        is_free = at is None or self.allow_outside
        try:
            return read_regular(path, limit, inside=None if is_free else self.root)
        except (OSError, ValueError) as error:
            subject = f"{path.name!r} cannot" if at is not None else "cannot"
            report.add(at, f"{subject} be read: {_why(error)}")
            return None

    def _note_missing(self, path: Path) -> None:
        if self.allow_outside or _absolute(path).is_relative_to(_absolute(self.root)):
            self.looked_for[_absolute(path)] = None


def read_regular(path: Path, limit: int, *, inside: Path | None = None) -> bytes:
    """At most ``limit + 1`` bytes of a regular file, so that the caller sees an excess.

    The file is pinned first, by a descriptor that neither reads nor waits (``O_PATH``); what it is
    and where it lies is asked of that descriptor, so that no symlink that changes meanwhile can
    lead elsewhere.

    Raises:
        OSError: not to be read, not a regular file, or not below the folder ``inside``.
    """
    pin = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        mode = os.fstat(pin).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError("not a regular file")
        pinned = Path(f"/proc/self/fd/{pin}")
        if inside is not None and not pinned.readlink().is_relative_to(inside.resolve()):
            raise OSError("it is outside the policy's folder")
        with pinned.open("rb") as file:
            return file.read(limit + 1)
    finally:
        os.close(pin)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - symlinks must stay


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)

"""Notices that a policy's files have changed: edits, renames over, ConfigMap symlink swaps.

inotify (watchfiles) on every folder that a file's path goes through tells at once *that* something
happened there; the facts of the file and of the links on its way (device, inode, size, change time)
tell whether it concerns us. The facts are also compared every ``RECHECK_S``, which covers file
systems without inotify, folders that are replaced whole, and the moments in which no folder is
watched.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from watchfiles import awatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from watchfiles import Change

STEP_MS: Final = 20
"""Quiet for so long: the change is complete."""
DEBOUNCE_MS: Final = 60
"""A stream of changes is looked at after so long at the latest."""
RECHECK_S: Final = 1.0
_CLOCK_GRAIN_NS: Final = 20_000_000
"""Change times come from a coarse clock, which lags up to a timer tick behind ``time.time_ns``."""
_MAX_LINKS: Final = 40  # as the kernel, path_resolution(7)


class FileFacts(NamedTuple):
    """A folder entry, itself and not what it may link to; all zero where there is none.

    The change time (ctime) and not the modification time, which ``cp -p`` and ``tar`` bring along.
    """

    device: int = 0
    inode: int = 0
    size: int = 0
    changed_ns: int = 0


@dataclass(frozen=True, slots=True)
class Watched:
    """The files of a policy, and when (POSIX nanoseconds) their reading began."""

    files: tuple[Path, ...]
    read_at_ns: int


Facts = dict[Path, FileFacts]


def look_at(files: Collection[Path]) -> Facts:
    """Facts of every folder entry whose change can change what a file's path leads to; blocks.

    The file itself and each symbolic link on the way, the links' targets included: for a ConfigMap
    ``policy.yaml``, ``..data`` and the file in the dated folder.
    """
    entries: set[Path] = set()
    for path in files:
        _walk(Path(os.path.normpath(path.absolute())), entries, _MAX_LINKS)
    return {entry: _facts(entry) for entry in entries}


def is_changed(before: Mapping[Path, FileFacts], now: Facts, read_at_ns: int) -> bool:
    """Whether an entry is another than before, or, not being known before, than when it was read.

    Of an entry written just before it was read the answer is yes, too: better a reload in vain.
    """
    read_at_ns -= _CLOCK_GRAIN_NS
    return any(
        before[path] != facts if path in before else facts.changed_ns >= read_at_ns
        for path, facts in now.items()
    )


async def watch(watched: Callable[[], Watched], changed: Callable[[], Awaitable[object]]) -> None:
    """Await ``changed()`` whenever the files have changed; runs until cancelled.

    ``watched`` is asked again after every change: the policy that was loaded may include others.
    """
    known: Facts = {}
    while True:
        known = await _look(watched, known, changed)
        try:
            known = await _watch_folders(watched, known, changed)
        except OSError:  # a folder is just being replaced, or inotify is exhausted
            await asyncio.sleep(RECHECK_S)


async def _watch_folders(
    watched: Callable[[], Watched],
    known: Facts,
    changed: Callable[[], Awaitable[object]],
) -> Facts:
    """Watch until there are other entries to watch."""
    entries = known.keys()
    folders = await asyncio.to_thread(_folders, entries)

    def concerns_us(_: Change, path: str) -> bool:
        return Path(path) in entries

    changes = awatch(
        *folders,
        watch_filter=concerns_us,
        step=STEP_MS,
        debounce=DEBOUNCE_MS,
        rust_timeout=int(RECHECK_S * 1000),
        yield_on_timeout=True,
        recursive=False,
    )
    async with aclosing(changes):
        async for _ in changes:
            known = await _look(watched, known, changed)
            if known.keys() != entries:
                break
    return known


async def _look(
    watched: Callable[[], Watched], known: Facts, changed: Callable[[], Awaitable[object]]
) -> Facts:
    """Compare; after a change, look anew, because other files may be read now."""
    while True:
        goal = watched()
        now = await asyncio.to_thread(look_at, goal.files)
        if not is_changed(known, now, goal.read_at_ns):
            return now
        known = now
        await changed()


def _folders(entries: Collection[Path]) -> set[Path]:
    return {entry.parent for entry in entries if entry.parent.is_dir()}


def _walk(path: Path, entries: set[Path], links_left: int) -> None:
    here = Path(path.anchor)
    parts = path.parts[1:]
    for place, part in enumerate(parts):
        entry = here / part
        if entry.is_symlink():
            entries.add(entry)
            if links_left:
                target = os.path.normpath(here / entry.readlink())
                _walk(Path(target, *parts[place + 1 :]), entries, links_left - 1)
            return
        here = entry
    entries.add(here)


def _facts(path: Path) -> FileFacts:
    try:
        found = path.lstat()
    except OSError:
        return FileFacts()
    return FileFacts(found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)

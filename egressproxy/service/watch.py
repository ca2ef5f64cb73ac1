"""Notices that a policy's files have changed: edits, renames over, ConfigMap symlink swaps.

inotify (watchfiles) on every folder that a file's path goes through tells at once *that* something
happened there; the facts of the files (what each path leads to: device, inode, size, change time)
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

STEP_MS: Final = 10
"""Quiet for so long: the change is complete."""
DEBOUNCE_MS: Final = 60
"""A stream of changes is looked at after so long at the latest."""
RECHECK_S: Final = 1.0
_MAX_LINKS: Final = 40  # as the kernel, path_resolution(7)


class FileFacts(NamedTuple):
    """What a path leads to; all zero where it leads nowhere.

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


def file_facts(files: Collection[Path]) -> Facts:
    """What each path leads to now; blocks."""
    return {path: _facts(path) for path in files}


def is_changed(before: Mapping[Path, FileFacts], now: Facts, read_at_ns: int) -> bool:
    """Whether a file is another than before, or, not being known before, than when it was read."""
    return any(
        before[path] != facts if path in before else facts.changed_ns >= read_at_ns
        for path, facts in now.items()
    )


def watched_entries(files: Collection[Path]) -> frozenset[Path]:
    """Every folder entry whose change can change what a file's path leads to.

    The file itself and each symbolic link on the way, the links' targets included: for a ConfigMap
    ``policy.yaml``, ``..data`` and the file in the dated folder. Blocks.
    """
    entries: set[Path] = set()
    for path in files:
        _walk(Path(os.path.normpath(path.absolute())), entries, _MAX_LINKS)
    return frozenset(entries)


async def watch(watched: Callable[[], Watched], changed: Callable[[], Awaitable[object]]) -> None:
    """Await ``changed()`` whenever the files have changed; runs until cancelled.

    ``watched`` is asked again after every change: the policy that was loaded may include others.
    """
    known: Facts = {}
    while True:
        files = watched().files
        entries = await asyncio.to_thread(watched_entries, files)
        folders = {entry.parent for entry in entries if entry.parent.is_dir()}
        known = await _look(watched, known, changed)
        try:
            known = await _watch_folders(folders, entries, watched, known, changed)
        except OSError:  # a folder is just being replaced, or inotify is exhausted
            await asyncio.sleep(RECHECK_S)


async def _watch_folders(
    folders: Collection[Path],
    entries: frozenset[Path],
    watched: Callable[[], Watched],
    known: Facts,
    changed: Callable[[], Awaitable[object]],
) -> Facts:
    """Watch until the entries to watch are others."""

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
            if await asyncio.to_thread(watched_entries, watched().files) != entries:
                break
    return known


async def _look(
    watched: Callable[[], Watched], known: Facts, changed: Callable[[], Awaitable[object]]
) -> Facts:
    goal = watched()
    now = await asyncio.to_thread(file_facts, goal.files)
    if is_changed(known, now, goal.read_at_ns):
        await changed()
    return now


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
        found = path.stat()
    except OSError:
        return FileFacts()
    return FileFacts(found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)

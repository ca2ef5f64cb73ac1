"""Changes of a policy's files are noticed, whatever made them; nothing else is."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from egressproxy.service.watch import Watched, look_at, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_blocking")]


class Watcher:
    """Counts the changes that it is told of."""

    def __init__(self, *files: Path) -> None:
        self.files = files
        self.read_at_ns = time.time_ns()
        self.told: asyncio.Queue[float] = asyncio.Queue()

    def watched(self) -> Watched:
        return Watched(self.files, self.read_at_ns)

    async def changed(self) -> None:
        self.read_at_ns = time.time_ns()
        self.told.put_nowait(time.monotonic())

    async def next(self) -> float:
        async with asyncio.timeout(10):
            return await self.told.get()

    async def hears_nothing_of(self, act: Callable[[], object], witness: Path) -> None:
        """After ``act``, a change of ``witness`` is the first thing heard."""
        act()
        touch(witness)
        await self.next()
        # Both acts may be seen in one look; a second tale would be the unrelated one's.
        touch(witness)
        await self.next()
        assert self.told.empty()


def touch(path: Path) -> None:
    path.write_text(f"touched {time.monotonic_ns()}")


@asynccontextmanager
async def watching(*files: Path) -> AsyncIterator[Watcher]:
    watcher = Watcher(*files)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch(watcher.watched, watcher.changed))
        yield watcher
        task.cancel()


async def test_written_renamed_over_removed_and_back(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("one")
    async with watching(policy) as watcher:
        policy.write_text("two")
        await watcher.next()
        draft = tmp_path / "draft"
        draft.write_text("three")
        draft.replace(policy)
        await watcher.next()
        policy.unlink()
        await watcher.next()
        policy.write_text("four")
        await watcher.next()


async def test_config_map_swap(tmp_path: Path) -> None:
    """As the kubelet's atomic writer does it: a dated folder, and ..data renamed to lead there."""
    for number in range(5):
        folder = tmp_path / f"..2026_{number}"
        folder.mkdir()
        (folder / "policy.yaml").write_text(f"policy {number}")
    policy = tmp_path / "policy.yaml"
    policy.symlink_to("..data/policy.yaml")

    def swap(number: int) -> None:
        link = tmp_path / "..data_tmp"
        link.symlink_to(f"..2026_{number}")
        link.rename(tmp_path / "..data")

    swap(0)
    async with watching(policy) as watcher:
        for number in range(1, 5):
            swap(number)
            await watcher.next()


async def test_a_change_between_reading_and_watching_is_not_lost(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("one")
    watcher = Watcher(policy)
    policy.write_text("two, which was not read")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch(watcher.watched, watcher.changed))
        await watcher.next()
        task.cancel()


async def test_a_file_that_joins_is_watched(tmp_path: Path) -> None:
    policy, elsewhere = tmp_path / "policy.yaml", tmp_path / "teams" / "team.yaml"
    elsewhere.parent.mkdir()
    policy.write_text("one")
    elsewhere.write_text("team")
    async with watching(policy) as watcher:
        watcher.files = (policy, elsewhere)
        policy.write_text("include: teams/team.yaml")
        await watcher.next()
        elsewhere.write_text("other")
        await watcher.next()


async def test_a_folder_that_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    folder.mkdir()
    policy = folder / "policy.yaml"
    policy.write_text("one")
    async with watching(policy) as watcher:
        other = tmp_path / "other"
        other.mkdir()
        (other / "policy.yaml").write_text("two, longer")
        folder.rename(tmp_path / "old")
        other.rename(folder)
        await watcher.next()


async def test_neighbours_are_not_heard(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("one")
    async with watching(policy) as watcher:
        policy.write_text("two")
        await watcher.next()
        await watcher.hears_nothing_of(lambda: (tmp_path / "flows.log").write_text("x"), policy)


def test_entries_of_a_config_map(tmp_path: Path) -> None:
    folder = tmp_path / "..2026"
    folder.mkdir()
    (folder / "policy.yaml").write_text("x")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "policy.yaml").symlink_to("..data/policy.yaml")
    assert look_at([tmp_path / "policy.yaml"]).keys() == {
        tmp_path / "policy.yaml",
        tmp_path / "..data",
        folder / "policy.yaml",
    }


def test_entries_of_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert look_at([tmp_path / "a"]).keys() == {tmp_path / "a", tmp_path / "b"}


def test_entries_through_a_parent(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "policy.yaml").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    entries = look_at([tmp_path / "link" / ".." / "link" / "policy.yaml"]).keys()
    assert entries == {tmp_path / "link", tmp_path / "real" / "policy.yaml"}

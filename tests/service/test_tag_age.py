"""The journal says that the service tag file is old, and goes on saying so."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest

from egressproxy.policy.tag_edition import STALE_DAYS, DatedBy, TagEdition
from egressproxy.service.journal import configure_journal
from egressproxy.service.tag_age import DAY_S, HINT, warn_daily, warn_if_stale

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_blocking")]

OLD = TagEdition(Path("/etc/ServiceTags.json"), "Public", 374, 0.0, DatedBy.NAME)


@pytest.fixture
def said(no_blocking: None) -> io.StringIO:
    stream = io.StringIO()
    configure_journal(stream)
    return stream


def lines(said: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("by", "word"), [(DatedBy.NAME, "published"), (DatedBy.MODIFIED, "written_here")]
)
async def test_old(said: io.StringIO, by: DatedBy, word: str) -> None:
    edition = TagEdition(OLD.path, "Public", 374, 0.0, by)
    warn_if_stale(edition, now=(STALE_DAYS + 1) * DAY_S)
    (line,) = lines(said)
    assert (line["level"], line["event"]) == ("warning", "service tags are old")
    assert (line["age_days"], line["file"], line["hint"]) == (29, "/etc/ServiceTags.json", HINT)
    assert line[word] == "1970-01-01"


async def test_young_or_none(said: io.StringIO) -> None:
    warn_if_stale(OLD, now=STALE_DAYS * DAY_S)
    warn_if_stale(None, now=0)
    assert not lines(said)


async def test_every_day_about_the_file_of_that_day(said: io.StringIO) -> None:
    asked: asyncio.Queue[None] = asyncio.Queue()
    editions = [None, OLD, None, OLD]

    def current() -> TagEdition | None:
        asked.put_nowait(None)
        return editions.pop(0) if editions else None

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(warn_daily(current, every_s=0.001))
        for _ in range(5):
            await asked.get()
        task.cancel()
    assert len(lines(said)) == 2

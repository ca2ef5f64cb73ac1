"""How old a service tag file is: by Microsoft's name for it, else by when it came here."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from egressproxy.policy.tag_edition import STALE_DAYS, DatedBy, TagEdition, edition

DAY = 86400.0
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC).timestamp()
NAMED = {
    "Microsoft's": ("ServiceTags_Public_20260601.json", "2026-06-01", DatedBy.NAME),
    "of China": ("ServiceTags_China_20260601.json", "2026-06-01", DatedBy.NAME),
    "in capitals": ("SERVICETAGS_PUBLIC_20260601.JSON", "2026-06-01", DatedBy.NAME),
    "tomorrow, where the day begins earlier": ("T_20260616.json", "2026-06-16", DatedBy.NAME),
    "of the future": ("ServiceTags_Public_20991231.json", "2026-06-10", DatedBy.MODIFIED),
    "no day": ("ServiceTags_Public_20261399.json", "2026-06-10", DatedBy.MODIFIED),
    "the year 0": ("ServiceTags_Public_00000101.json", "2026-06-10", DatedBy.MODIFIED),
    "the year 1": ("ServiceTags_Public_00010101.json", "2026-06-10", DatedBy.MODIFIED),
    "more digits": ("ServiceTags_Public_202606011.json", "2026-06-10", DatedBy.MODIFIED),
    "no date": ("ServiceTags_Public.json", "2026-06-10", DatedBy.MODIFIED),
}


def written(path: Path, at: float) -> Path:
    path.write_text("{}")
    os.utime(path, (at, at))
    return path


@pytest.mark.parametrize(("name", "day", "by"), NAMED.values(), ids=NAMED)
def test_dated(tmp_path: Path, name: str, day: str, by: DatedBy) -> None:
    path = written(tmp_path / name, NOW - 5 * DAY)
    found = edition(path, "Public", 374, now=NOW)
    assert (found.day, found.dated_by) == (day, by)


def test_a_link_with_a_name_of_its_own(tmp_path: Path) -> None:
    written(tmp_path / "ServiceTags_Public_20260601.json", NOW)
    link = tmp_path / "tags.json"
    link.symlink_to("ServiceTags_Public_20260601.json")
    assert edition(link, "Public", 374, now=NOW).day == "2026-06-01"


def test_a_file_that_is_gone_or_of_the_future_is_of_now(tmp_path: Path) -> None:
    assert edition(tmp_path / "none.json", "Public", 1, now=NOW).dated == NOW
    loop = tmp_path / "loop.json"
    loop.symlink_to("loop.json")
    assert edition(loop, "Public", 1, now=NOW).dated == NOW
    future = written(tmp_path / "future.json", NOW + 100 * DAY)
    assert edition(future, "Public", 1, now=NOW).age_days(NOW) == 0


def test_age() -> None:
    found = TagEdition(Path("ServiceTags.json"), "Public", 374, NOW, DatedBy.NAME)
    assert [found.age_days(NOW + days * DAY) for days in (-9, 0, 0.9, 1, 28)] == [0, 0, 0, 1, 28]
    assert not found.is_stale(NOW + (STALE_DAYS + 0.9) * DAY)
    assert found.is_stale(NOW + (STALE_DAYS + 1) * DAY)


def test_in_words() -> None:
    path = Path("/etc/egressproxy/ServiceTags.json")
    by_name = TagEdition(path, "Public", 374, NOW, DatedBy.NAME)
    assert str(by_name) == "ServiceTags.json: Public, change 374, published 2026-06-15"
    by_time = TagEdition(path, "Public", 374, NOW, DatedBy.MODIFIED)
    assert str(by_time) == "ServiceTags.json: Public, change 374, here since 2026-06-15"

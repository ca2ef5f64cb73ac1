"""Which service tag file a policy was read with, and how old that is.

Microsoft's file has no date inside, only ``changeNumber``, which counts its weekly editions. Its
name at the download has one: ``ServiceTags_Public_20251020.json``. Where a copy has another name,
what is left is when the file was written here, and that is a lower bound: it cannot be younger than
Microsoft made it, but may be older than it seems.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

STALE_DAYS: Final = 28
"""Four editions. Microsoft announces ranges a week before they are used."""

_DAY_S: Final = 86400.0
_DATE: Final = re.compile(r"_(\d{8})\.json", re.ASCII | re.IGNORECASE)


class DatedBy(StrEnum):
    """What a file's date was taken from."""

    NAME = "name"
    """The date in Microsoft's file name: when it was published."""
    MODIFIED = "modified"
    """When the file was written here: published then or earlier."""


@dataclass(frozen=True, slots=True)
class TagEdition:
    """One service tag file as it was read; ``dated`` is POSIX seconds."""

    path: Path
    cloud: str
    change_number: int
    dated: float
    dated_by: DatedBy

    @property
    def day(self) -> str:
        """Its date in UTC, such as ``2025-10-20``."""
        return datetime.fromtimestamp(self.dated, UTC).date().isoformat()

    def facts(self) -> dict[str, Any]:
        """For a page or JSON."""
        return {
            "file": str(self.path),
            "cloud": self.cloud,
            "change_number": self.change_number,
            "dated": self.day,
            "dated_by": str(self.dated_by),
        }

    def age_days(self, now: float) -> int:
        """Whole days since its date, 0 at least; ``now`` is POSIX seconds."""
        return max(0, int((now - self.dated) // _DAY_S))

    def is_stale(self, now: float) -> bool:
        """Whether a younger one should be here by now."""
        return self.age_days(now) > STALE_DAYS

    def __str__(self) -> str:
        dated = "published" if self.dated_by is DatedBy.NAME else "here since"
        return f"{self.path.name}: {self.cloud}, change {self.change_number}, {dated} {self.day}"


def edition(path: Path, cloud: str, change_number: int, *, now: float) -> TagEdition:
    """Date a file that was just read: by its name, or its target's, else by when it was written.

    A name with a day after tomorrow, or before 1970, says nothing.
    """
    published = _published(path.name) or _published(_target(path))
    if published is not None and 0 <= published <= now + _DAY_S:
        return TagEdition(path, cloud, change_number, published, DatedBy.NAME)
    return TagEdition(path, cloud, change_number, _modified(path, now), DatedBy.MODIFIED)


def _published(name: str) -> float | None:
    found = _DATE.search(name)
    if found is None:
        return None
    try:
        return datetime.strptime(found[1], "%Y%m%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _target(path: Path) -> str:
    try:
        return path.resolve().name
    except (OSError, RuntimeError):  # RuntimeError: a symlink loop, up to Python 3.12
        return ""


def _modified(path: Path, now: float) -> float:
    """The youngest that it can be; replaced while it was read, it is of this moment."""
    try:
        return min(now, max(0.0, path.stat().st_mtime))
    except OSError:
        return now

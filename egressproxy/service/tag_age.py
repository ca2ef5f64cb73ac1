"""Says in the journal that the service tag file has become old: when it is read, and every day.

An old file denies nothing by mistake today; it denies the ranges that Microsoft takes into use from
now on, and still allows those that were given back.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from egressproxy.policy.tag_edition import STALE_DAYS, DatedBy
from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from collections.abc import Callable

    from egressproxy.policy.tag_edition import TagEdition

DAY_S: Final = 86400.0
HINT: Final = (
    "download this week's and see what changes: egressproxy tags diff OLD NEW --policy FILE"
)


def warn_if_stale(edition: TagEdition | None, *, now: float) -> None:
    """One warning where the file is older than ``STALE_DAYS``; ``now`` is POSIX seconds."""
    if edition is None or not edition.is_stale(now):
        return
    what = "published" if edition.dated_by is DatedBy.NAME else "written_here"
    journal().warning(
        "service tags are old",
        file=str(edition.path),
        **{what: edition.day},
        age_days=edition.age_days(now),
        expected_days=STALE_DAYS,
        hint=HINT,
    )


async def warn_daily(current: Callable[[], TagEdition | None], *, every_s: float = DAY_S) -> None:
    """Look again while nobody reloads; runs until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        warn_if_stale(current(), now=time.time())

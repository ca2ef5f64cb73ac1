"""Can records be kept for review: is the store there, ours, and is there room for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from egressproxy.doctor.finding import fail, ok, warn
from egressproxy.errors import StoreError
from egressproxy.review.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from egressproxy.doctor.finding import Finding
    from egressproxy.doctor.machine import Machine
    from egressproxy.doctor.plan import Plan

CHECK: Final = "review store"
_GIB: Final = 1 << 30


def check_review_store(machine: Machine, plan: Plan) -> Iterator[Finding]:
    """Nothing where no store is wanted; a database is asked, within its five seconds."""
    place = plan.review_store
    if place is None:
        return
    if "://" in place:
        yield _asked(place)
        return
    path = machine.root / place.lstrip("/") if place.startswith("/") else machine.root / place
    if not path.parent.is_dir():
        yield warn(
            CHECK,
            f"the folder of {place} is not there",
            "the service does not start without it, unless systemd makes it (StateDirectory=)",
            f"install -d -m 0750 -o egressproxy -g egressproxy {os.path.dirname(place)}",  # noqa: PTH120 - a text
        )
        return
    yield _asked(str(path)) if path.exists() else ok(CHECK, f"{place}, to be made")
    yield from _room(path, plan.settings.review_max_bytes)


def _asked(place: str) -> Finding:
    try:
        with open_store(place, is_reader=True) as store:
            return ok(CHECK, store.place)
    except StoreError as error:
        if error.code == "missing" and "://" in place:
            return ok(CHECK, error.message)
        return fail(
            CHECK,
            error.message,
            "no record is kept for review; where it is not a database that is away, the service"
            " does not start",
            error.hint,
        )


def _room(path: Path, wanted: int) -> Iterator[Finding]:
    try:
        disk = os.statvfs(path.parent)
        there = path.stat().st_size if path.exists() else 0
    except OSError:
        return
    free = disk.f_bavail * disk.f_frsize + there
    shown = f"{free / _GIB:.1f} GiB for {wanted / _GIB:.1f} GiB"
    if free < wanted:
        yield warn(
            "review store's disk",
            shown,
            "it is full before the store forgets its oldest records: then none is kept",
            f"review_max_bytes: {free // 2}   # in the configuration",
        )
    else:
        yield ok("review store's disk", shown)

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from egressproxy.doctor.machine import Machine
from egressproxy.doctor.plan import Plan
from egressproxy.doctor.review_store import check_review_store
from egressproxy.review.store import open_store
from egressproxy.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.doctor.finding import Finding

PLACE = "/var/lib/egressproxy/review.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "var/lib/egressproxy"
    made.mkdir(parents=True)
    return made


def found(root: Path, place: str | None = PLACE, **limits: Any) -> dict[str, Finding]:
    limits = {"review_max_bytes": 16 << 20, **limits}
    plan = Plan(review_store=place, settings=Settings(**limits))
    return {each.check: each for each in check_review_store(Machine(root=root), plan)}


def test_none_is_wanted(tmp_path: Path) -> None:
    assert not found(tmp_path, None)


def test_one_that_will_be_made(tmp_path: Path, folder: Path) -> None:
    store = found(tmp_path)["review store"]
    assert (store.level, store.seen) == ("ok", f"{PLACE}, to be made")
    assert not list(folder.iterdir()), "the doctor makes nothing"


def test_one_that_is_there(tmp_path: Path, folder: Path) -> None:
    open_store(str(folder / "review.db")).close()
    assert {each.level for each in found(tmp_path).values()} == {"ok"}


def test_its_folder_is_missing(tmp_path: Path) -> None:
    store = found(tmp_path)["review store"]
    assert store.level == "warn"
    assert store.fix.endswith(" /var/lib/egressproxy")


def test_something_else_is_there(tmp_path: Path, folder: Path) -> None:
    (folder / "review.db").write_text("somebody's notes, and long enough")
    store = found(tmp_path)["review store"]
    assert (store.level, "is not a review store" in store.seen) == ("fail", True)


def test_a_database_that_is_away_says_no_password(tmp_path: Path) -> None:
    (store,) = found(tmp_path, "postgresql://u:secret@127.0.0.1:1/review").values()
    assert store.level == "fail"
    assert "secret" not in str(store)


def test_a_disk_that_is_too_small(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(folder)
    assert found(tmp_path)["review store's disk"].level == "ok"
    disk = list(real)
    disk[4] = 1000  # f_bavail
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(disk))
    small = found(tmp_path)["review store's disk"]
    assert small.level == "warn"
    assert small.fix.startswith(f"review_max_bytes: {1000 * real.f_frsize // 2} ")

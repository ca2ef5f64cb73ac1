"""Names that a warn-on-new policy takes for known: without a store, with one, when it fails."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from egressproxy.policy.rules import Mode
from egressproxy.review.bounds import Bounds
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer
from egressproxy.service.new_names import STALE_S, NewNames
from tests.policy.building import policy
from tests.review.records import START, flow

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.observe.record import FlowRecord

DAY_S = 86400.0
NOW = START + 10 * DAY_S
UNTIL = datetime.fromtimestamp(NOW, UTC).date() + timedelta(days=30)
WARNING = policy(mode=Mode.WARN_ON_NEW, warn_until=UNTIL)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def write(place: Path, *records: FlowRecord) -> None:
    with open_store(str(place)) as store:
        Writer(store, gateway="hub", bounds=Bounds()).add(records)


OTHERS = {
    "enforce": replace(WARNING, mode=Mode.ENFORCE),
    "audit": replace(WARNING, mode=Mode.AUDIT),
    "over": replace(WARNING, warn_until=date(2026, 1, 1)),
}


@pytest.mark.parametrize("case", OTHERS)
def test_no_other_policy_asks(case: str, tmp_path: Path) -> None:
    names = NewNames(str(tmp_path / "is not there"), Clock())
    assert names.known(OTHERS[case]) is None


def test_without_a_store_every_name_counts_as_known() -> None:
    names = NewNames(None, Clock())
    with capture_logs() as told:
        assert names.known(WARNING) is None
        assert names.known(WARNING) is None
    (line,) = told  # once
    assert line["event"] == "warn-on-new enforces: every name counts as known"
    assert (line["log_level"], line["why"]) == ("warning", "there is no review store")


def test_names_become_known_when_the_window_is_over(tmp_path: Path) -> None:
    place, clock = tmp_path / "review.db", Clock()
    write(place, flow(name="old.test", time=START), flow(name="new.test", time=NOW - DAY_S))
    names = NewNames(str(place), clock)
    first = names.known(WARNING)
    assert first is not None
    assert first.has("old.test")
    assert not first.has("new.test")
    assert names.known(WARNING) is first  # nothing has changed: nothing is read
    clock.now += 6 * DAY_S + 3600
    later = names.known(WARNING)
    assert later is not None
    assert later.has("new.test")
    assert later.digest != first.digest
    shorter = names.known(replace(WARNING, warn_window_s=3600))
    assert shorter is not None
    assert shorter.digest == later.digest


def test_a_store_that_is_not_there_is_told_when_it_should_be() -> None:
    names = NewNames("/nowhere/review.db", Clock())
    with capture_logs() as told:
        assert names.known(WARNING) is None
    assert told == []  # the recorder makes it when the service has loaded its policy
    with capture_logs() as told:
        assert names.known(WARNING) is None
        assert names.known(WARNING) is None
    assert [line["log_level"] for line in told] == ["warning"]


def test_a_store_that_fails_keeps_its_last_word_for_an_hour(tmp_path: Path) -> None:
    place, clock = tmp_path / "review.db", Clock()
    names = NewNames(str(place), clock)
    assert names.known(WARNING) is None  # it is not there yet: enforced
    write(place, flow(name="old.test", time=START))
    assert names.known(WARNING) is not None
    for file in tmp_path.iterdir():
        file.unlink()
    clock.now += STALE_S - 1
    kept = names.known(WARNING)
    assert kept is not None
    assert kept.has("old.test")
    clock.now += 1
    assert names.known(WARNING) is None
    write(place, flow(name="other.test", time=START))
    again = names.known(WARNING)
    assert again is not None
    assert not again.has("old.test")

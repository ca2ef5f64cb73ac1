"""What the memory of names says is known, in both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.errors import StoreError
from egressproxy.review import known as known_module
from egressproxy.review.bounds import Bounds
from egressproxy.review.known import known_names, memory_of
from egressproxy.review.writer import Writer
from tests.review.records import START, flow

if TYPE_CHECKING:
    from egressproxy.observe.record import FlowRecord
    from egressproxy.policy.known import Known
    from egressproxy.review.store import Store

DAY_S = 86400.0
NOW = START + 10 * DAY_S


def write(store: Store, *records: FlowRecord, subjects: int = 500) -> None:
    Writer(store, gateway="hub", bounds=Bounds(subjects_per_source_hour=subjects)).add(records)


def known(store: Store, before: float, now: float = NOW) -> Known:
    return known_names(store, before, memory_of(store, before, now))


def test_names_are_known_by_when_they_were_first_seen(store: Store) -> None:
    write(
        store,
        flow(name="old.test", time=START),
        flow(name="both.test", time=START + DAY_S),
        flow(name="both.test", time=NOW - 60),
        flow(name="new.test", time=NOW - 60),
        flow(name=None, time=START),
    )
    found = known(store, NOW - 7 * DAY_S)
    seen = {name: found.has(name) for name in ("old.test", "both.test", "new.test", "never.test")}
    assert seen == {"old.test": True, "both.test": True, "new.test": False, "never.test": False}
    assert known(store, NOW).has("new.test")
    assert not known(store, START).has("old.test")  # first seen at that moment, not before


def test_an_empty_store_knows_nothing(store: Store) -> None:
    memory = memory_of(store, NOW, NOW)
    assert (memory.names, memory.newest, memory.crowded) == (0, 0.0, frozenset())
    assert not known(store, NOW).has("a.test")


def test_a_memory_changes_with_what_is_known_and_with_nothing_else(store: Store) -> None:
    before = NOW - 7 * DAY_S
    write(store, flow(name="old.test", time=START))
    memory = memory_of(store, before, NOW)
    write(store, flow(name="new.test", time=NOW - 60), flow(name="old.test", time=NOW - 60))
    assert memory_of(store, before, NOW) == memory
    write(store, flow(name="older.test", time=START - DAY_S))
    assert memory_of(store, before, NOW) != memory


def test_who_has_more_names_than_are_remembered_has_no_new_ones_for_a_day(store: Store) -> None:
    at = NOW - 3600
    many = [flow(name=f"n{i}.test", src_ip="10.240.0.9", time=at + i) for i in range(5)]
    write(store, *many, flow(name="a.test", src_ip="10.240.0.4", time=at), subjects=3)
    found = known(store, NOW - 7 * DAY_S)
    assert found.is_crowded("10.240.0.9")
    assert not found.is_crowded("10.240.0.4")
    later = NOW + 2 * DAY_S
    assert not known(store, later - 7 * DAY_S, later).is_crowded("10.240.0.9")


@pytest.mark.parametrize("name", ["ü.test", "x" * 256, "<b>\u202e", "a'b\"c.test"])
def test_hostile_names_of_imported_logs_do_no_harm(store: Store, name: str) -> None:
    write(store, flow(name=name, time=START), flow(name="fine.test", time=START))
    found = known(store, NOW)
    assert found.has("fine.test")


@pytest.mark.parametrize("limit", ["MAX_NAMES", "MAX_CROWDED"])
def test_more_than_can_be_relied_on_is_no_answer(
    store: Store, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [flow(name=f"n{i}.test", time=START + i) for i in range(5)]
    write(store, *many, subjects=3)
    now = START + 60
    memory_of(store, now, now)
    monkeypatch.setattr(known_module, limit, 0)
    with pytest.raises(StoreError, match="too many") as caught:
        memory_of(store, now, now)
    assert caught.value.code == "full"

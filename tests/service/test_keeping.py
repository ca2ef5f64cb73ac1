"""Records reach the store however it fails, or are counted as lost."""

from __future__ import annotations

import io
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from egressproxy.errors import StoreError
from egressproxy.observe.cells import ReviewCount
from egressproxy.observe.record import FlowRecord, Plane
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review.writer import Added
from egressproxy.service import keeping
from egressproxy.service.journal import configure_journal
from egressproxy.service.keeping import MAX_PENDING, MAX_TRIES, PRUNE_S, Keeper
from egressproxy.service.recorder_messages import ReloadNote, RuleHitsNote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def records(*names: str) -> list[FlowRecord]:
    base = FlowRecord(
        0.0, "f", 1, Action.DENY, Reason.DEFAULT_DENY, Plane.EXPLICIT, "tls", "10.1.0.4", 443
    )
    return [base._replace(name=name) for name in names]


class Store:
    """A writer that fails when told to, with what it stored."""

    def __init__(self) -> None:
        self.names: list[str | None] = []
        self.reloads: list[str] = []
        self.hits: Counter[str] = Counter()
        self.pruned: list[float] = []
        self.fault: StoreError | None = None
        self.poison = ""
        self.opened = 0

    def open(self) -> Store:
        self._may_fail()
        self.opened += 1
        return self

    def _may_fail(self) -> None:
        if self.fault is not None:
            raise self.fault

    def add(self, records: Sequence[FlowRecord]) -> Added:
        self._may_fail()
        names = [record.name for record in records]
        if self.poison in names:
            raise StoreError("cannot be stored")
        new = tuple(name for name in names if name not in self.names)
        self.names += names
        return Added(len(names), 0, tuple(filter(None, new)))

    def note_reload(self, *, outcome: str, **_: Any) -> None:
        self._may_fail()
        self.reloads.append(outcome)

    def note_rule_hits(self, packets: Mapping[str, int], *, at: float) -> None:
        self._may_fail()
        self.hits.update(packets)

    def prune(self, now: float) -> None:
        self._may_fail()
        self.pruned.append(now)


class Bench:
    """A keeper with its store, its counts, and a clock to be set."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.store = Store()
        self.counts: Counter[ReviewCount] = Counter()
        self.journal = io.StringIO()
        configure_journal(self.journal)
        self.keeper = Keeper(
            self.store.open, self, clock=lambda: self.now, wall_clock=lambda: 1_790_000_000.0
        )

    def review(self, what: ReviewCount, number: int = 1) -> None:
        self.counts[what] += number

    def wait_for_retry(self) -> None:
        assert self.keeper.next_turn > self.now
        self.now = self.keeper.next_turn


@pytest.fixture
def bench() -> Iterator[Bench]:
    yield Bench()
    structlog.reset_defaults()


def test_records_and_notes_are_stored_in_batches(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "BATCH_RECORDS", 2)
    bench.keeper.take(records("a", "b", "c", "a", "b"))
    bench.keeper.note(ReloadNote(at=1.0, outcome="applied", digest="d", previous="", report="{}"))
    bench.keeper.note(RuleHitsNote({"r": 3}, 2.0))
    assert bench.keeper.next_turn <= bench.now
    bench.keeper.turn()
    assert bench.store.names == ["a", "b", "c", "a", "b"]
    assert bench.store.reloads == ["applied"]
    assert bench.store.hits == {"r": 3}
    assert bench.counts[ReviewCount.STORED] == 5
    assert bench.counts[ReviewCount.NEW_NAMES] == 3
    assert bench.store.opened == 1


def test_a_failing_store_gets_everything_later_with_growing_pauses(bench: Bench) -> None:
    bench.store.fault = StoreError("away")
    pauses = []
    for name in "abcdefg":
        bench.keeper.take(records(name))
        bench.keeper.note(RuleHitsNote({name: 1}, 1.0))
        bench.keeper.turn()
        bench.keeper.turn()  # not its time: nothing is tried
        pauses.append(bench.keeper.next_turn - bench.now)
        bench.wait_for_retry()
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert bench.counts == {ReviewCount.ERRORS: 7}
    bench.store.fault = None
    bench.keeper.turn()
    assert bench.store.names == list("abcdefg")
    assert sum(bench.store.hits.values()) == 7
    said = bench.journal.getvalue()
    assert said.count("the review store fails") == 1, "once an outage"
    assert said.count("takes records again") == 1
    bench.store.fault = StoreError("away")
    bench.keeper.take(records("h"))
    bench.keeper.turn()
    assert bench.keeper.next_turn - bench.now == 1.0, "pauses begin anew"


def test_too_many_waiting_are_dropped_newest_first_and_counted(bench: Bench) -> None:
    bench.store.fault = StoreError("away")
    bench.keeper.take(records(*(f"n{number}" for number in range(MAX_PENDING - 1))))
    bench.keeper.take(records("last", "lost", "lost"))
    bench.keeper.take(records("lost"))
    assert bench.counts[ReviewCount.DROPPED] == 3
    bench.store.fault = None
    bench.keeper.turn()
    assert len(bench.store.names) == MAX_PENDING
    assert bench.store.names[-1] == "last"


def test_what_the_store_will_never_take_does_not_hold_up_the_rest(bench: Bench) -> None:
    bench.store.poison = "poison"
    bench.keeper.take(records("a", "poison"))
    for _ in range(MAX_TRIES):
        bench.keeper.turn()
        bench.wait_for_retry()
    assert bench.counts[ReviewCount.DROPPED] == 2
    bench.keeper.take(records("b"))
    bench.keeper.turn()
    assert bench.store.names == ["b"]


@pytest.mark.parametrize("code", ["full", "busy", "store"])
def test_a_store_that_is_away_is_waited_for_however_long(bench: Bench, code: str) -> None:
    bench.keeper.open()
    bench.store.fault = StoreError("away", code=code)
    bench.keeper.take(records("a"))
    for _ in range(5 * MAX_TRIES):
        bench.keeper.turn()
        bench.wait_for_retry()
    bench.store.fault = None
    bench.keeper.turn()
    assert bench.store.names == ["a"]
    assert not bench.counts[ReviewCount.DROPPED]


def test_it_prunes_now_and_then(bench: Bench) -> None:
    bench.keeper.turn()
    assert bench.store.pruned == []
    bench.now += PRUNE_S
    assert bench.keeper.next_turn == bench.now
    bench.keeper.turn()
    bench.keeper.turn()
    assert bench.store.pruned == [1_790_000_000.0]


def test_close_tries_until_its_deadline(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        bench.now += seconds

    monkeypatch.setattr("time.sleep", sleep)
    bench.store.fault = StoreError("away")
    bench.keeper.take(records("a", "b"))
    bench.keeper.close(bench.now + 3.0)
    assert waits == [1.0, 2.0]
    assert bench.counts[ReviewCount.DROPPED] == 2
    assert "records for the review are lost" in bench.journal.getvalue()


def test_close_stores_what_is_left(bench: Bench) -> None:
    bench.keeper.take(records("a"))
    bench.keeper.close(bench.now)
    assert bench.store.names == ["a"]


def test_a_store_that_is_gone_is_made_anew() -> None:
    bench = Bench()
    bench.keeper.take(records("a"))
    bench.keeper.turn()
    bench.store.fault = StoreError("moved", code="missing")
    bench.keeper.take(records("b"))
    bench.keeper.turn()
    assert bench.store.opened == 1
    bench.store.fault = None
    bench.now += 5
    bench.keeper.turn()
    assert bench.store.opened == 2
    assert bench.store.names == ["a", "b"]

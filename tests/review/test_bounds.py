from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.review import bounds as module
from egressproxy.review.bounds import Bounds, Budget

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = 3600
FEW = Bounds(subjects_per_source_hour=2, subjects_per_hour=3, records_per_source_hour=2)


def test_a_source_has_so_many_subjects_an_hour() -> None:
    budget = Budget(FEW)
    assert [budget.takes_subject("a", 0) for _ in range(4)] == [True, True, False, False]
    assert budget.takes_subject("a", HOUR), "a new hour"
    assert budget.takes_subject("b", 0), "another source"
    assert not budget.takes_subject("c", 0), "all sources together"
    assert budget.takes_subject("c", HOUR)


def test_a_source_that_is_refused_uses_nothing_of_the_others() -> None:
    budget = Budget(FEW)
    for _ in range(10):
        budget.takes_subject("a", 0)
    assert budget.takes_subject("b", 0)


def test_packets_of_made_up_sources_leave_half_to_flows() -> None:
    """A handshake has a source; a packet says what its sender likes."""
    budget = Budget(Bounds(subjects_per_hour=10))
    packets = [budget.takes_subject(f"10.0.0.{n}", 0, is_packet=True) for n in range(20)]
    assert packets.count(True) == 5
    flows = [budget.takes_subject(f"10.1.0.{n}", 0) for n in range(20)]
    assert flows.count(True) == 5
    assert budget.takes_subject("10.0.0.1", HOUR, is_packet=True)
    budget.undo()
    assert budget.takes_subject("10.0.0.1", 0, is_packet=True)


TAKES: dict[str, Callable[[Budget], bool]] = {
    "subjects": lambda budget: budget.takes_subject("a", 0),
    "records": lambda budget: budget.takes_record("a", 0),
}


@pytest.mark.parametrize("takes", TAKES.values(), ids=TAKES)
def test_what_was_not_stored_is_given_back(takes: Callable[[Budget], bool]) -> None:
    budget = Budget(FEW)
    assert takes(budget)
    budget.keep()
    for _ in range(5):  # a store that fails for a while
        assert [takes(budget), takes(budget)] == [True, False]
        budget.undo()
    assert takes(budget)
    budget.keep()
    budget.undo()
    assert not takes(budget)


def test_overflow_subjects_have_a_bound_too() -> None:
    budget = Budget(FEW)
    assert [budget.takes_overflow(0) for _ in range(4)] == [True, True, True, False]
    assert budget.takes_overflow(HOUR)


def test_it_does_not_grow_with_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 10)
    budget = Budget(Bounds())
    for number in range(1000):
        budget.takes_record(f"source {number}", 0)
        budget.keep()
    assert len(budget._records._counts) == 10

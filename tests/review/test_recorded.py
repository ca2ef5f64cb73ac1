from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from egressproxy.policy.verdict import Action
from egressproxy.review.bounds import Bounds
from egressproxy.review.recorded import UNDERWAY_S, Recorded
from egressproxy.review.writer import Writer
from tests.review.records import START, flow

if TYPE_CHECKING:
    from egressproxy.observe.record import FlowRecord
    from egressproxy.review.store import Store

NOW = START + 7200.0
STORED = flow(time=START + 100)


def missing(store: Store, *records: FlowRecord, budget: int = 1000, now: float = NOW) -> list[bool]:
    found = Recorded(store, "gw", budget=budget, now=now).missing(records)
    return [record in found for record in records]


def recorded(store: Store, *records: FlowRecord, since: float = START, **bounds: int) -> None:
    writer = Writer(store, gateway="gw", bounds=Bounds(**bounds))
    writer.note_recording(since=since, allows="all")
    writer.add(records)


def test_what_is_stored_and_what_is_not(store: Store) -> None:
    recorded(store, STORED)
    others: dict[str, Any] = {
        "flow_id": "0-2",
        "time": START + 101,
        "name": "other.example",
        "dst_port": 8443,
        "action": Action.ALLOW,
        "close_reason": "open",
    }
    changed = [STORED._replace(**{field: value}) for field, value in others.items()]
    assert missing(store, STORED, *changed) == [False, *([True] * len(changed))]


def test_a_gateway_that_never_recorded_misses_everything(store: Store) -> None:
    Writer(store, gateway="other", bounds=Bounds()).add([STORED])
    assert missing(store, STORED, flow(time=0.0)) == [True, True]


def test_before_it_recorded_everything_is_missing(store: Store) -> None:
    recorded(store, STORED, since=START + 50)
    assert missing(store, flow(time=START + 49), flow(time=START + 51)) == [True, False], (
        "the second is older than the oldest record, which may have been deleted"
    )


def test_another_gateways_records_are_others(store: Store) -> None:
    recorded(store, flow(time=START))
    Writer(store, gateway="other", bounds=Bounds()).add([STORED])
    assert missing(store, STORED) == [True]


def test_what_is_on_its_way_is_not_missing(store: Store) -> None:
    recorded(store, flow(time=START))
    begun = NOW - 2 * UNDERWAY_S
    records = [flow(time=begun), flow(time=begun, duration_s=100.0), flow(time=NOW - 1)]
    assert missing(store, *records) == [True, False, False]


@pytest.mark.parametrize("bound", ["subjects_per_source_hour", "records_per_source_hour"])
def test_what_was_joined_is_not_missing(store: Store, bound: str) -> None:
    flood = [flow(time=START + n, name=f"n{n}.example", flow_id=f"0-{n}") for n in range(9)]
    recorded(store, *flood, **{bound: 5})
    new = flow(time=START + 5, flow_id="0-99")
    quiet = new._replace(src_ip="10.240.0.99")
    later = new._replace(time=START + 3605)
    assert missing(store, new, quiet, later, budget=5) == [False, True, True]


def test_many_moments(store: Store) -> None:
    every = [flow(time=START + n, flow_id=f"0-{n}") for n in range(1200)]
    recorded(store, *every[::2])
    assert missing(store, *every, budget=10_000) == [False, True] * 600

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from egressproxy.observe.record import Plane
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review.batch import Batch, flows_of
from egressproxy.review.bounds import Bounds, Budget
from tests.review.records import START, flow

if TYPE_CHECKING:
    from egressproxy.observe.record import FlowRecord

AUDITED: dict[str, Any] = {"action": Action.ALLOW, "would_deny": True, "reason": Reason.NO_SNI}

COUNTS: dict[str, tuple[FlowRecord, int]] = {
    "a deny": (flow(), 1),
    "a folded deny": (flow(count=7), 7),
    "an allow at its close": (flow(action=Action.ALLOW, close_reason="client_closed"), 1),
    "an audited flow at its beginning": (flow(**AUDITED, close_reason="open"), 1),
    "the same at its end": (flow(**AUDITED, dialled_ip="20.1.2.3", close_reason="idle"), 0),
    "one that never had an upstream": (flow(**AUDITED, close_reason="client_reset"), 1),
    "an audited name of an HTTP connection, at its end": (
        flow(**AUDITED, protocol="http", dialled_ip="20.1.2.3", close_reason="done"),
        0,
    ),
    "one whose client left while it was dialled": (
        flow(**AUDITED, protocol="http", close_reason="client_closed"),
        1,
    ),
    "audited packets": (flow(**AUDITED, plane=Plane.NETWORK, close_reason="open", count=3), 3),
    "audited packets, folded": (flow(**AUDITED, plane=Plane.NETWORK, count=3), 3),
    "an audited deny that failed": (
        flow(action=Action.ERROR, would_deny=True, close_reason="error"),
        1,
    ),
}


@pytest.mark.parametrize(("record", "count"), COUNTS.values(), ids=COUNTS)
def test_a_flow_is_counted_once(record: FlowRecord, count: int) -> None:
    assert flows_of(record) == count


def test_sums_by_hour_and_day() -> None:
    batch = Batch(Budget(Bounds()))
    moments = (START + 10.0, START + 5.0, START + 3599.999, START + 3600.0, START + 86_400.0)
    for at in moments:
        batch.take(flow(time=at, bytes_up=1, bytes_down=2, count=2), 7, is_overflow=False)
    hour, day = int(START), int(START)
    assert batch.hours == {
        (hour, 7): [6, 3, 6, START + 5.0, START + 3599.999],
        (hour + 3600, 7): [2, 1, 2, START + 3600.0, START + 3600.0],
        (day + 86_400, 7): [2, 1, 2, START + 86_400.0, START + 86_400.0],
    }
    assert batch.days == {
        (day, 7): [8, 4, 8, START + 5.0, START + 3600.0],
        (day + 86_400, 7): [2, 1, 2, START + 86_400.0, START + 86_400.0],
    }
    assert [row["at"] for row in batch.rows] == list(moments)
    assert batch.names == {"evil.example": (START + 5.0, START + 86_400.0)}
    assert batch.overflowed == 0


def test_beyond_the_budget_records_alike_are_one() -> None:
    batch = Batch(Budget(Bounds(records_per_source_hour=2)))
    for number in range(6):
        batch.take(
            flow(flow_id=f"f{number}", bytes_up=1, requests=1, count=2),
            number % 2,
            is_overflow=False,
        )
    assert [(row["flow_id"], row["subject_id"], row["count"]) for row in batch.rows] == [
        ("f0", 0, 2),
        ("f1", 1, 2),
        ("f4", 0, 4),
        ("f5", 1, 4),
    ]
    assert [row["bytes_up"] for row in batch.rows] == [1, 1, 2, 2]
    assert [row["requests"] for row in batch.rows] == [1, 1, 2, 2]
    assert sum(row["count"] for row in batch.rows) == sum(h[0] for h in batch.hours.values())


def test_an_overflow_subject_has_one_record_and_its_names_are_not_remembered() -> None:
    batch = Batch(Budget(Bounds()))
    for number in range(5):
        batch.take(flow(name=f"n{number}.example"), 9, is_overflow=True)
    assert [row["count"] for row in batch.rows] == [5]
    assert batch.overflowed == 5
    assert batch.names == {}


def test_texts_are_fit_for_either_database() -> None:
    batch = Batch(Budget(Bounds()))
    hostile = "a\0b\ud800\N{RIGHT-TO-LEFT OVERRIDE}<script>"
    batch.take(
        flow(flow_id=hostile, close_reason=hostile, name=hostile, tls_versions=(hostile,)),
        1,
        is_overflow=False,
    )
    (row,) = batch.rows
    kept = "a\ufffdb?\N{RIGHT-TO-LEFT OVERRIDE}<script>"
    assert row["flow_id"] == row["close_reason"] == kept
    assert list(batch.names) == [kept]
    assert row["tls_versions"].isascii()

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.observe.fold import Folds
from egressproxy.observe.record import FlowRecord, Plane
from egressproxy.policy.verdict import Action, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., FlowRecord]


def test_the_first_is_written_the_rest_counted(make_record: Make) -> None:
    folds = Folds(10.0)
    first = make_record(src_port=1)
    assert folds.take(first, 100.0) == [first]
    for port in range(2, 50):
        assert folds.take(make_record(src_port=port, flow_id=f"0-{port}"), 101.0) == []
    assert folds.ended(109.9) == []
    (summary,) = folds.ended(110.0)
    assert summary.count == 48
    assert summary.src_port == 49, "the last of them stands for all"


def test_a_flood_that_goes_on_is_one_record_a_window(make_record: Make) -> None:
    folds, written = Folds(10.0), 0
    for tick in range(1000):  # 100 seconds
        now = tick / 10
        written += sum(record.count for record in folds.ended(now))
        written += sum(record.count for record in folds.take(make_record(), now))
    lines_left = folds.flush()
    assert written + sum(record.count for record in lines_left) == 1000
    assert len(folds) == 0


def test_a_window_without_a_second_one_says_nothing(make_record: Make) -> None:
    folds = Folds(10.0)
    folds.take(make_record(), 0.0)
    assert folds.next_end == 10.0
    assert folds.ended(10.0) == []
    assert folds.next_end is None


DIFFERENT = {
    "reason": {"reason": Reason.NO_SNI},
    "rule": {"rule": "no-gists"},
    "plane": {"plane": Plane.EXPLICIT},
    "protocol": {"protocol": "http"},
    "source": {"src_ip": "10.240.0.5"},
    "name": {"name": "other.example"},
    "port": {"dst_port": 8443},
    "action": {"action": Action.ERROR},
    "split hello": {"hello_split": True},
}
ALIKE = {
    "time": {"time": 1.0},
    "flow": {"flow_id": "0-2"},
    "source port": {"src_port": 9},
    "address of the same name": {"dst_ip": "20.1.2.9"},
}


@pytest.mark.parametrize("fields", DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_is_written(make_record: Make, fields: dict[str, object]) -> None:
    folds = Folds(10.0)
    folds.take(make_record(), 0.0)
    assert len(folds.take(make_record(**fields), 0.0)) == 1


@pytest.mark.parametrize("fields", ALIKE.values(), ids=ALIKE)
def test_what_does_not_differ_is_folded(make_record: Make, fields: dict[str, object]) -> None:
    folds = Folds(10.0)
    folds.take(make_record(), 0.0)
    assert folds.take(make_record(**fields), 0.0) == []


def test_nameless_flows_differ_by_address(make_record: Make) -> None:
    folds = Folds(10.0)
    folds.take(make_record(name=None), 0.0)
    assert len(folds.take(make_record(name=None, dst_ip="20.1.2.9"), 0.0)) == 1


NEVER = {
    "allowed": {"action": Action.ALLOW, "reason": Reason.RULE},
    "revoked": {"reason": Reason.REVOKED},
}


@pytest.mark.parametrize("fields", NEVER.values(), ids=NEVER)
def test_never_folded(make_record: Make, fields: dict[str, object]) -> None:
    folds = Folds(10.0)
    for _ in range(3):
        assert len(folds.take(make_record(**fields), 0.0)) == 1
    assert len(folds) == 0


def test_what_the_kernel_let_pass_in_audit_is_folded(make_record: Make) -> None:
    folds = Folds(10.0)
    audited = make_record(action=Action.ALLOW, would_deny=True, plane=Plane.NETWORK)
    assert folds.take(audited, 0.0) == [audited]
    assert folds.take(audited, 1.0) == []
    denied = make_record(plane=Plane.NETWORK)
    assert folds.take(denied, 1.0) == [denied], "a deny is another thing"


def test_a_window_of_zero_folds_nothing(make_record: Make) -> None:
    folds = Folds(0.0)
    assert all(len(folds.take(make_record(), 0.0)) == 1 for _ in range(3))


names = st.integers(0, 20).map(lambda number: f"n{number}.example")


@given(st.lists(st.tuples(names, st.floats(0, 3)), max_size=300))
def test_nothing_is_lost_and_memory_is_bounded(flows: list[tuple[str, float]]) -> None:
    folds, now, total = Folds(10.0, capacity=5), 0.0, 0
    for name, pause_s in flows:
        now += pause_s
        record = FlowRecord(
            time=now, flow_id="", action=Action.DENY, reason=Reason.DEFAULT_DENY,
            plane=Plane.EXPLICIT, protocol="tls", src_ip="", src_port=0, dst_port=0, name=name,
        )  # fmt: skip
        total += sum(r.count for r in folds.ended(now))
        total += sum(r.count for r in folds.take(record, now))
        assert len(folds) <= 5
    assert total + sum(r.count for r in folds.flush()) == len(flows)

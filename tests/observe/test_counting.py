from __future__ import annotations

import pytest

from egressproxy.observe.cells import (
    DECIDE_BOUNDS_S,
    HELLO_BOUNDS_BYTES,
    NETWORK_BOUNDS_S,
    KernelCount,
    Latency,
    LookupOutcome,
    NameCount,
)
from egressproxy.observe.counters import Counters
from egressproxy.observe.record import Plane
from egressproxy.policy.verdict import Action, Reason


def test_each_method_has_cells_of_its_own() -> None:
    counters = Counters.create(1)
    row = counters.worker(0)
    row.flow(Plane.EXPLICIT, Action.ALLOW, Reason.DEFAULT_DENY, would_deny=True)
    row.resolver(LookupOutcome.NEGATIVE)
    row.log_dropped(3)
    row.log_folded(5)
    row.log_error()
    row.stall_s(0.25)
    row.stall_s(0.125)
    totals = counters.totals()
    assert [key for key, count in totals.flows.items() if count] == [
        (Plane.EXPLICIT, Action.ALLOW, Reason.DEFAULT_DENY)
    ]
    assert totals.would_deny == {
        Plane.EXPLICIT: 1,
        Plane.TRANSPARENT: 0,
        Plane.NETWORK: 0,
    }
    assert {key: n for key, n in totals.lookups.items() if n} == {LookupOutcome.NEGATIVE: 1}
    assert (totals.log_dropped, totals.log_folded, totals.log_errors) == (3, 5, 1)
    assert totals.longest_stall_s == 0.25
    assert totals.bytes_up == totals.bytes_down == 0


BUCKETS = {
    "decide, first": (Latency.DECIDE, 0.0, 0),
    "decide, on a bound": (Latency.DECIDE, DECIDE_BOUNDS_S[2], 2),
    "decide, above a bound": (Latency.DECIDE, DECIDE_BOUNDS_S[2] * 1.01, 3),
    "decide, above all": (Latency.DECIDE, 99.0, len(DECIDE_BOUNDS_S)),
    "resolve": (Latency.RESOLVE, 0.011, 4),
    "dial": (Latency.DIAL, 0.02, 4),
    "first byte": (Latency.FIRST_BYTE, 16.0, len(NETWORK_BOUNDS_S)),
}


@pytest.mark.parametrize(("latency", "seconds", "bucket"), BUCKETS.values(), ids=BUCKETS)
def test_latencies_fall_into_their_bucket(latency: Latency, seconds: float, bucket: int) -> None:
    counters = Counters.create(1)
    getattr(counters.worker(0), f"{latency}_s")(seconds)
    for measured, histogram in counters.totals().latencies.items():
        expected = {bucket: 1} if measured is latency else {}
        assert {at: n for at, n in enumerate(histogram.counts) if n} == expected
        assert histogram.total == pytest.approx(seconds if expected else 0, abs=1e-9)


@pytest.mark.parametrize(("size", "bucket"), [(1, 0), (517, 3), (1536, 5), (70_000, 11)])
def test_hello_sizes_fall_into_their_bucket(size: int, bucket: int) -> None:
    counters = Counters.create(1)
    counters.worker(0).hello_size(size)
    hello = counters.totals().hello
    assert list(hello.bounds) == list(HELLO_BOUNDS_BYTES)
    assert {at: n for at, n in enumerate(hello.counts) if n} == {bucket: 1}
    assert hello.total == size


def test_what_is_counted_of_the_kernel() -> None:
    counters = Counters.create(1)
    row = counters.supervisor()
    for _ in range(2):
        row.kernel_packets(3)
        row.kernel_lost(5)
        row.kernel_overruns(1)
        row.kernel_malformed(7)
        row.kernel_disagreement()
        row.refused_addresses(11)
        row.set_error()
        row.unresolved_names(13)
        row.address_book(17, 19)
    totals = counters.totals()
    assert {what: count for what, count in totals.kernel.items() if count} == {
        KernelCount.PACKETS: 6,
        KernelCount.LOST: 10,
        KernelCount.OVERRUNS: 2,
        KernelCount.MALFORMED: 14,
        KernelCount.DISAGREEMENTS: 2,
        KernelCount.REFUSED_ADDRESSES: 22,
        KernelCount.SET_ERRORS: 2,
    }
    assert totals.names == {
        NameCount.UNRESOLVED: 13,
        NameCount.BOOK_NAMES: 17,
        NameCount.BOOK_PAIRS: 19,
    }


def test_an_engine_counts_the_same_once_it_tells() -> None:
    told, plain = Counters.create(1), Counters.create(1)
    engine, worker = told.engine(0), plain.worker(0)
    for row in (engine, worker):
        row.flow(Plane.TRANSPARENT, Action.DENY, Reason.DEFAULT_DENY)
        row.flow(Plane.TRANSPARENT, Action.ALLOW, Reason.RULE, would_deny=True)
        row.hello_size(517)
        row.resolver(LookupOutcome.HIT)
        row.bytes_moved(3, 5)
        for latency in Latency:
            getattr(row, f"{latency}_s")(0.011)
    assert told.totals() != plain.totals()
    for _ in range(2):  # what is told is told once
        engine.flush()
        worker.flush()
        assert told.totals() == plain.totals()

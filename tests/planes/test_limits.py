"""Flow limits over several workers, which here are several views of one mapping."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import ServiceError
from egressproxy.planes.limits import FlowLimits, Source, WorkerLimits
from egressproxy.policy.verdict import Reason
from egressproxy.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE, OTHER = "10.0.0.1", "10.0.0.2"


@pytest.fixture
def shared() -> Iterator[FlowLimits]:
    limits = FlowLimits.create(3, 256)
    yield limits
    limits.close()


def admitted(limits: WorkerLimits, address: str) -> Source:
    source = limits.admit(address)
    assert isinstance(source, Source), source
    return source


def test_the_global_limit_is_over_all_workers(shared: FlowLimits) -> None:
    settings = Settings(max_flows=3)
    one, two = shared.worker(0, settings), shared.worker(1, settings)
    admitted(one, ONE)
    admitted(two, ONE)
    last = admitted(one, OTHER)
    assert shared.total() == 3
    assert one.admit(ONE) is Reason.LIMIT_GLOBAL
    assert two.admit(OTHER) is Reason.LIMIT_GLOBAL
    one.release(last)
    admitted(two, OTHER)


def test_the_source_limit_is_exact_over_all_workers(shared: FlowLimits) -> None:
    settings = Settings(max_flows_per_source=3)
    workers = [shared.worker(n, settings) for n in range(3)]
    held = [(worker, admitted(worker, ONE)) for worker in workers]
    assert [worker.admit(ONE) for worker in workers] == [Reason.LIMIT_SOURCE] * 3
    for worker in workers:
        admitted(worker, OTHER)
    worker, source = held.pop()
    worker.release(source)
    admitted(workers[0], ONE)
    assert workers[1].admit(ONE) is Reason.LIMIT_SOURCE


def test_a_refusal_leaves_no_count(shared: FlowLimits) -> None:
    limits = shared.worker(0, Settings(max_flows_per_source=1))
    source = admitted(limits, ONE)
    for _ in range(5):
        assert limits.admit(ONE) is Reason.LIMIT_SOURCE
    assert shared.total() == 1
    limits.release(source)
    assert shared.total() == 0
    admitted(limits, ONE)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "255.255.255.255", "fd00::1", "fe80::1%eth0", "::1"]
)
def test_addresses_of_every_kind(shared: FlowLimits, address: str) -> None:
    limits = shared.worker(0, Settings(max_flows_per_source=1))
    source = admitted(limits, address)
    assert limits.admit(address) is Reason.LIMIT_SOURCE
    limits.release(source)


def test_rows_of_sources_that_left_are_used_again(shared: FlowLimits) -> None:
    settings = Settings(max_flows_per_source=2)
    one, two = shared.worker(0, settings), shared.worker(1, settings)
    stays = admitted(one, ONE)
    for n in range(5000):  # twenty times as many as there are rows
        address = f"10.1.{n // 250}.{n % 250}"
        source = admitted(one, address)
        admitted_twice = admitted(two, address)
        assert two.admit(address) is Reason.LIMIT_SOURCE
        one.release(source)
        two.release(admitted_twice)
    admitted(two, ONE)
    assert one.admit(ONE) is Reason.LIMIT_SOURCE
    one.release(stays)
    assert shared.total() == 1


def test_more_sources_than_rows_are_refused_not_miscounted() -> None:
    limits = FlowLimits.create(1, 64)
    worker = limits.worker(0, Settings())
    outcomes = [worker.admit(f"10.0.1.{n}") for n in range(80)]
    held = [outcome for outcome in outcomes if isinstance(outcome, Source)]
    assert len(held) == 64
    assert outcomes[64:] == [Reason.LIMIT_SOURCE] * 16
    assert len({source.row for source in held}) == 64
    limits.close()


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.booleans()), max_size=60))
def test_the_mapping_says_what_is_held(steps: list[tuple[int, int, bool]]) -> None:
    """Three sources share two rows, and take them from whoever has left."""
    limits = FlowLimits.create(2, 2)
    workers = [limits.worker(n, Settings(max_flows_per_source=3)) for n in range(2)]
    held: list[tuple[int, int, Source]] = []
    for worker, number, opens in steps:
        of_source = [flow for flow in held if flow[1] == number]
        if opens:
            answer = workers[worker].admit(f"10.0.0.{number}")
            rows = {flow[1] for flow in held} | {number}
            assert isinstance(answer, Source) == (len(of_source) < 3 and len(rows) <= 2)
            if isinstance(answer, Source):
                held.append((worker, number, answer))
        elif mine := [flow for flow in of_source if flow[0] == worker]:
            held.remove(mine[0])
            workers[worker].release(mine[0][2])
        assert limits.total() == len(held)
        for _, source, flow in held:
            assert limits.in_row(flow.row) == sum(source == other for _, other, _ in held)
    limits.close()


def test_a_worker_that_died_holds_nothing(shared: FlowLimits) -> None:
    settings = Settings(max_flows_per_source=2)
    dead, alive = shared.worker(0, settings), shared.worker(1, settings)
    admitted(dead, ONE)
    admitted(dead, OTHER)
    admitted(alive, ONE)
    successor = shared.worker(0, settings)
    assert shared.total() == 1
    admitted(successor, ONE)
    assert alive.admit(ONE) is Reason.LIMIT_SOURCE


def test_another_process_counts_in_the_same_mapping() -> None:
    limits = FlowLimits.create(2, 256)
    settings = Settings(max_flows_per_source=2)
    mine = limits.worker(0, settings)
    admitted(mine, ONE)
    code = (
        "import sys; from egressproxy.planes.limits import FlowLimits;"
        "from egressproxy.settings import Settings;"
        "limits = FlowLimits.attach(int(sys.argv[1]), 2, 256);"
        "w = limits.worker(1, Settings(max_flows_per_source=2));"
        f"print(w.admit({ONE!r}).flows, w.admit({ONE!r}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(limits.fd)],
        pass_fds=[limits.fd],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["1", "limit_source"]
    assert mine.admit(ONE) is Reason.LIMIT_SOURCE
    limits.close()


def test_a_mapping_of_another_size_is_refused() -> None:
    limits = FlowLimits.create(2, 256)
    with pytest.raises(ServiceError, match="another number of workers"):
        FlowLimits.attach(limits.fd, 3, 256)
    fd = os.dup(limits.fd)
    FlowLimits.attach(fd, 2, 256).close()
    limits.close()

from dataclasses import replace
from typing import Any

import pytest

from bench.soak.samples import Held, Sample
from bench.soak.verdict import Check, Facts, Seen, growth, records, returned, table, traffic

HELD = Held(memory=40_000_000, files=20, pipes=4, threads=3, tasks=2, blocks=1000)
METRICS = {
    "egressproxy_flows_total": 104.0,
    "egressproxy_denies_total revoked": 4.0,
    "egressproxy_log_dropped_records_total": 0.0,
    "egressproxy_review_dropped_records_total": 0.0,
    "egressproxy_worker_restarts_total": 0.0,
    "egressproxy_recorder_restarts_total": 0.0,
    "egressproxy_engine_longest_stall_seconds": 0.004,
}
TALLY = {"done": {"allowed": 5}, "faults": 0, "told": [], "octets": 9000}
FACTS = Facts(
    idle_asked=10,
    idle_standing=10,
    tally=TALLY,
    reloads=[("applied", "applied"), ("refused", "refused")],
    seen=Seen(METRICS, METRICS),
    records=100,
)


def failed(checks: list[Check]) -> list[str]:
    return [check.what for check in checks if not check.ok]


def sample(at: float, one: Held = HELD, flows: int = 0) -> Sample:
    return Sample(at, flows, {"worker 1": one})


def test_a_clean_soak_fails_nothing() -> None:
    assert failed([*traffic(FACTS), *records(FACTS), *returned(sample(0), sample(9))]) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"idle_standing": 9}, "idle tunnels standing"),
        ({"tally": {**TALLY, "faults": 1}}, "tunnels broken, octets wrong"),
        (
            {"reloads": [("refused", "applied")]},
            "reloads that went otherwise than expected",
        ),
        ({"records": 99}, "flows in the record log"),
        ({"records": 101}, "flows in the record log"),
    ],
)
def test_what_broke_or_was_lost_fails(changes: dict[str, Any], what: str) -> None:
    facts = replace(FACTS, **changes)
    assert failed([*traffic(facts), *records(facts)]) == [what]


@pytest.mark.parametrize(
    ("metric", "what"),
    [
        ("egressproxy_log_dropped_records_total", "records that the log lost"),
        ("egressproxy_worker_restarts_total", "processes that died"),
        ("egressproxy_recorder_restarts_total", "processes that died"),
    ],
)
def test_a_counter_that_moved_fails(metric: str, what: str) -> None:
    facts = replace(FACTS, seen=Seen(METRICS, {**METRICS, metric: 1.0}))
    assert failed(list(records(facts))) == [what]


def test_only_what_the_review_lost_under_load_fails() -> None:
    lost = {**METRICS, "egressproxy_review_dropped_records_total": 7.0}
    assert failed(list(records(replace(FACTS, seen=Seen(METRICS, lost))))) == []
    under_load = failed(list(records(replace(FACTS, seen=Seen(lost, lost)))))
    assert under_load == ["records that the review store lost under load"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"files": 21}, ["worker 1: files at the end"]),
        ({"pipes": 4 + 128}, []),
        ({"pipes": 4 + 129}, ["worker 1: pipes at the end"]),
        ({"threads": 4}, ["worker 1: threads at the end"]),
        ({"tasks": 3}, ["worker 1: tasks at the end"]),
        ({"memory": 90_000_000}, []),
    ],
)
def test_what_does_not_come_back_fails(changes: dict[str, int], what: list[str]) -> None:
    assert failed(list(returned(sample(0), sample(9, replace(HELD, **changes))))) == what


def test_a_flow_that_stays_fails() -> None:
    assert failed(list(returned(sample(0), sample(9, flows=1)))) == ["open flows at the end"]


@pytest.mark.parametrize(
    ("octets_a_second", "is_growing"), [(0, False), (2200, False), (2300, True)]
)
def test_memory_may_grow_by_eight_megabytes_an_hour(octets_a_second: int, is_growing: bool) -> None:
    line = [
        sample(at, replace(HELD, memory=HELD.memory + octets_a_second * at))
        for at in range(0, 600, 5)
    ]
    expected = ["worker 1: growth of private memory"] if is_growing else []
    assert failed(list(growth(line, block_s=60))) == expected


def test_a_run_too_short_for_a_slope_says_so() -> None:
    first = next(iter(growth([sample(0), sample(5)], block_s=60)))
    assert first.value == "too short a run"


def test_a_line_that_failed_says_so() -> None:
    text = table([Check("files", "3", "2", ok=False), Check("flows", "0", "0", ok=True)])
    assert "| files | 3 | 2 | FAILED |" in text
    assert "| flows | 0 | 0 | ok |" in text

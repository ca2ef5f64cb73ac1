"""Micro benchmarks of what a flow runs through: parse, decide, record.

``python -m bench --only micro`` runs them on the compiled and on the interpreted copy and writes
the table (``bench.micro``). Where one call is many steps, ``steps`` says how many, and the table
has the time of one.
"""

from __future__ import annotations

from itertools import count, cycle
from typing import TYPE_CHECKING, Any, Final

import pytest

from bench.decide_cost import SIZES, Kind, flow, new_flows, ruleset_of
from bench.hello import client_hello, post_quantum_hello
from bench.policies import below
from egressproxy.observe.log import RecordLog
from egressproxy.observe.record import FlowRecord, NameSource, Plane, to_json_line
from egressproxy.policy.verdict import Action, Pass, Reason
from egressproxy.settings import Settings
from egressproxy.wire.client_hello import HelloReader, parse_client_hello

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.policy.ruleset import Ruleset

NAME: Final = "myregistry.japaneast.data.azurecr.io"
NOW: Final = 1_790_000_000.0
SEGMENT: Final = 1448
"""Octets of a TCP segment on a link of 1500, with time stamps."""
NEW_NAMES: Final = 50_000
"""More than a memo holds, so that asking them in turn never hits it."""
BATCH: Final = 100
"""Records in one go: fewer than the writer takes at once, so they meet it asleep or lingering."""
MANY_RECORDS: Final = 5_000


class NothingLost:
    """What the log counts; a lost record ends the benchmark."""

    def log_dropped(self, records: int) -> None:
        """The queue was full."""
        assert not records

    def log_folded(self, records: int) -> None:
        """Two records were taken for one."""
        assert not records

    def log_error(self) -> None:
        """The disk refused."""
        raise AssertionError

    def review_dropped(self, records: int) -> None:
        """There is no recorder."""
        assert not records


def record(number: int) -> FlowRecord:
    """A denied flow, of which each name is new."""
    return FlowRecord(
        time=NOW,
        flow_id="1-42",
        action=Action.DENY,
        reason=Reason.DEFAULT_DENY,
        plane=Plane.TRANSPARENT,
        protocol="tls",
        src_ip="10.240.0.4",
        src_port=40000,
        dst_port=443,
        decided_by=Pass.APPLICATION,
        dst_ip="52.85.1.1",
        name=f"exfiltration{number}.example.net",
        name_source=NameSource.SNI,
        alpn=("h2", "http/1.1"),
        tls_versions=("1.3", "1.2"),
    )


@pytest.fixture(scope="module", params=SIZES, ids="{:,} names".format)
def ruleset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ruleset:
    return ruleset_of(request.param, tmp_path_factory.mktemp("policy"))


@pytest.mark.benchmark(group="parse")
def test_parse_517_octets(benchmark: Any) -> None:
    hello = client_hello(NAME)
    assert benchmark(parse_client_hello, hello).name == NAME


@pytest.mark.benchmark(group="parse")
def test_parse_post_quantum_in_two_segments(benchmark: Any) -> None:
    hello = post_quantum_hello(NAME)
    assert SEGMENT < len(hello) < 2 * SEGMENT

    def parse() -> Any:
        assert parse_client_hello(hello[:SEGMENT]) is None
        reader = HelloReader()
        reader.feed(hello[:SEGMENT])
        return reader.feed(hello[SEGMENT:])

    assert benchmark(parse).name == NAME


@pytest.mark.benchmark(group="decide")
def test_decide_seen_before(benchmark: Any, ruleset: Ruleset) -> None:
    asked = flow(below(7, "a"))
    assert benchmark(ruleset.decide, asked, NOW).is_allow


@pytest.mark.benchmark(group="decide")
def test_decide_new(benchmark: Any, ruleset: Ruleset, request: pytest.FixtureRequest) -> None:
    size = request.node.callspec.params["ruleset"]
    names = cycle(new_flows(Kind.NEW_ALLOWED, size, count(), NEW_NAMES))
    assert benchmark(lambda: ruleset.decide(next(names), NOW)).is_allow


@pytest.mark.benchmark(group="record")
def test_record_build(benchmark: Any) -> None:
    assert benchmark(record, 1).reason is Reason.DEFAULT_DENY


@pytest.mark.benchmark(group="record")
def test_record_line_of_a_name_seen_before(benchmark: Any) -> None:
    assert benchmark(to_json_line, record(1)).endswith(b"}\n")


@pytest.mark.benchmark(group="record")
def test_record_line_of_a_new_name(benchmark: Any) -> None:
    records = cycle([record(n) for n in range(NEW_NAMES)])
    assert benchmark(lambda: to_json_line(next(records))).endswith(b"}\n")


@pytest.mark.benchmark(group="record")
def test_record_write_as_a_flow_sees_it(benchmark: Any, tmp_path: Path) -> None:
    """The queue and the bell; a log of its own for every batch, so that its thread is asleep."""
    records = [record(n) for n in range(BATCH)]
    logs: list[RecordLog] = []

    def fresh() -> tuple[tuple[RecordLog], dict[str, Any]]:
        if logs:
            logs.pop().close()
        logs.append(RecordLog(tmp_path / "flows.jsonl", Settings(), NothingLost()))
        return (logs[0],), {}

    def write(log: RecordLog) -> None:
        for each in records:
            log.write(each)

    benchmark.extra_info["steps"] = BATCH
    benchmark.pedantic(write, setup=fresh, rounds=40)
    logs.pop().close()
    assert (tmp_path / "flows.jsonl").read_bytes().count(b"\n") == 40 * BATCH


@pytest.mark.benchmark(group="record")
def test_record_on_disk_thread_included(benchmark: Any, tmp_path: Path) -> None:
    records = [record(n) for n in range(MANY_RECORDS)]

    def write() -> None:
        log = RecordLog(tmp_path / "flows.jsonl", Settings(fold_window_s=0.0), NothingLost())
        for each in records:
            log.write(each)
        log.close()

    benchmark.extra_info["steps"] = MANY_RECORDS
    benchmark.pedantic(write, rounds=10)
    assert (tmp_path / "flows.jsonl").read_bytes().count(b"\n") == 10 * MANY_RECORDS

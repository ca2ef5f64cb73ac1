"""The recorder as a process: started, killed, replaced, ended with the last line stored."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from egressproxy.errors import ServiceError, StoreError
from egressproxy.observe.cells import ReviewCount
from egressproxy.observe.counters import Counters
from egressproxy.observe.record import FlowRecord, Plane, to_json_line
from egressproxy.planes.context import AllowRecords
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review import schema
from egressproxy.review.store import open_store
from egressproxy.service import recording as module
from egressproxy.service.journal import configure_journal
from egressproxy.service.options import LogOptions, RunOptions
from egressproxy.service.recorder import OOM_SCORE
from egressproxy.service.recorder_messages import RuleHitsNote
from egressproxy.service.recording import Recording, allows_text, recorder_spec
from egressproxy.service.reload_history import reload_note
from egressproxy.service.report import Outcome, ReloadReport, Trigger
from tests.review.postgresql import Server, programs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = pytest.mark.anyio

REPORT = ReloadReport(
    outcome=Outcome.APPLIED,
    triggers=(Trigger.FILE,),
    at=1_790_000_000.25,
    digest="ab" * 32,
    changes=("rule a is new",),
)


def line(number: int) -> bytes:
    return to_json_line(
        FlowRecord(
            time.time(),
            f"0-{number}",
            1,
            Action.DENY,
            Reason.DEFAULT_DENY,
            Plane.EXPLICIT,
            "tls",
            f"10.1.0.{number % 4}",  # each has a budget of single records
            443,
            name=f"n{number % 7}.example",
        )
    )


class Bench:
    """A recording over a SQLite store, and what is in it."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / "review.db"
        self.counters = Counters.create(1)
        self.journal = io.StringIO()
        configure_journal(self.journal)

    def options(self, **given: Any) -> RunOptions:
        return RunOptions(policy=Path("p"), listeners=(), workers=1, gateway="gw-1", **given)

    @asynccontextmanager
    async def recording(self, place: str = "") -> AsyncIterator[Recording]:
        spec = recorder_spec(self.options(), place or str(self.place), since=5.0)
        async with Recording(spec, self.counters) as recording:
            await recording.opened()
            yield recording

    def count(self, what: ReviewCount) -> int:
        return self.counters.totals().review[what]

    def flow_ids(self) -> list[str]:
        with open_store(str(self.place), is_reader=True) as store, store.connect() as connection:
            asked = schema.record.select().with_only_columns(schema.record.c.flow_id)
            return list(connection.execute(asked).scalars())

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = map(json.loads, self.journal.getvalue().splitlines())
        return [each for each in lines if each["event"] == event]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    structlog.reset_defaults()
    made.counters.close()


async def until(is_so: Callable[[], Any], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - another process has no event for us
            await asyncio.sleep(0.01)


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_every_line_is_stored_at_the_end_and_nothing_is_left_open(bench: Bench) -> None:
    before = open_descriptors()
    async with bench.recording() as recording:
        pid = recording.pid
        assert pid is not None
        assert os.getpriority(os.PRIO_PROCESS, pid) >= 10, "flows come first"
        assert oom_score(pid) == OOM_SCORE
        tee = recording.tee()
        assert tee.write(b"".join(map(line, range(100)))) == 0
        tee.close()
    assert bench.flow_ids() == [f"0-{number}" for number in range(100)]
    assert bench.count(ReviewCount.STORED) == 100
    assert bench.count(ReviewCount.NEW_NAMES) == 7
    assert open_descriptors() == before
    assert is_gone(pid)
    assert bench.place.stat().st_mode & 0o777 == 0o640


async def test_a_record_can_be_reviewed_within_seconds(bench: Bench) -> None:
    async with bench.recording() as recording:
        recording.tee().write(line(1))
        await until(bench.flow_ids, 5.0)


async def test_notes_reach_the_store_and_the_next_service(bench: Bench) -> None:
    async with bench.recording() as recording:
        assert recording.past == ()
        recording.note(reload_note(REPORT))
        recording.note(RuleHitsNote({"r": 7}, 1_790_000_000.0))
    with open_store(str(bench.place), is_reader=True) as store, store.connect() as connection:
        hits = connection.execute(schema.rule_hits.select()).one()
        assert (hits.gateway, hits.rule, hits.packets) == ("gw-1", "r", 7)
    async with bench.recording() as recording:
        assert recording.past == (REPORT,)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_recorder_that_ends_is_replaced_and_the_pipe_s_lines_are_kept(
    bench: Bench, number: signal.Signals
) -> None:
    async with bench.recording() as recording, asyncio.TaskGroup() as group:
        keep = group.create_task(recording.keep())
        tee, first = recording.tee(), recording.pid
        assert first is not None
        tee.write(line(1))
        await until(bench.flow_ids)
        os.kill(first, signal.SIGSTOP)  # reads no more, so that the pipe has what comes now
        tee.write(line(2))
        recording.note(RuleHitsNote({"r": 1}, 1.0))
        os.kill(first, number)
        os.kill(first, signal.SIGCONT)
        await until(lambda: recording.pid not in (None, first))
        tee.write(line(3))
        await until(lambda: len(bench.flow_ids()) == 3)
        keep.cancel()
        tee.close()
    assert bench.flow_ids() == ["0-1", "0-2", "0-3"]
    assert bench.count(ReviewCount.RESTARTS) == 1
    (told,) = bench.said("the recorder ended, flows go on")
    assert told["how"] == ("SIGKILL" if number is signal.SIGKILL else "exit status 0")


async def test_one_that_died_while_the_service_ended_is_started_for_the_rest(
    bench: Bench,
) -> None:
    async with bench.recording() as recording:
        assert recording.pid is not None
        os.kill(recording.pid, signal.SIGKILL)
        await until(lambda: recording.pid is None)
        tee = recording.tee()
        tee.write(line(1))
        tee.close()
    assert bench.flow_ids() == ["0-1"]


async def test_one_that_hangs_at_the_end_is_killed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "END_GRACE_S", 0.2)
    async with bench.recording() as recording:
        pid = recording.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    assert is_gone(pid)
    assert bench.said("the recorder does not end, it is killed")


async def test_a_flood_is_stored_or_counted_as_dropped(bench: Bench) -> None:
    written = 0
    async with bench.recording() as recording:
        tee = recording.tee()
        lost = 0
        for batch in range(60):
            lines = b"".join(line(batch * 500 + number) for number in range(500))
            lost += tee.write(lines)
            written += 500
        tee.close()
    assert len(bench.flow_ids()) == written - lost == bench.count(ReviewCount.STORED)
    assert bench.count(ReviewCount.UNREADABLE) == 0


async def test_a_store_that_cannot_be_had_is_an_error_at_the_start(bench: Bench) -> None:
    before = open_descriptors()
    with pytest.raises(StoreError, match="make the folder first"):
        async with bench.recording("/nonexistent/review.db"):
            pytest.fail("opened")
    bench.place.write_text("somebody's notes, and long enough")
    with pytest.raises(StoreError, match="is not a review store"):
        async with bench.recording():
            pytest.fail("opened")
    assert open_descriptors() == before


async def test_a_database_that_is_away_does_not_keep_the_gateway_from_starting(
    bench: Bench,
) -> None:
    async with bench.recording("postgresql://u:secret@127.0.0.1:1/review") as recording:
        assert recording.pid is not None
        tee = recording.tee()
        tee.write(line(1))
        tee.close()
    assert bench.count(ReviewCount.ERRORS) >= 1
    assert bench.count(ReviewCount.DROPPED) == 1, "told as lost"


async def test_a_recorder_that_cannot_start_is_an_error_at_the_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MODULE", "egressproxy.service.no_such_module")
    with pytest.raises(ServiceError, match=r"did not start \(exit status 1\)"):
        async with bench.recording():
            pytest.fail("opened")
    monkeypatch.setattr("sys.executable", "/nonexistent")
    with pytest.raises(ServiceError, match="cannot be started"):
        async with bench.recording():
            pytest.fail("opened")


async def test_a_service_that_does_not_start_does_not_wait_for_its_recorder(bench: Bench) -> None:
    before = open_descriptors()
    spec = recorder_spec(bench.options(), str(bench.place), since=5.0)
    async with Recording(spec, bench.counters) as recording:
        pid = recording.pid
    assert pid is not None
    assert is_gone(pid)
    assert open_descriptors() == before


async def test_a_store_that_is_gone_for_good_is_told_and_flows_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.recording() as recording, asyncio.TaskGroup() as group:
        assert recording.pid is not None
        for each in bench.place.parent.glob("review.db*"):
            each.unlink()
        bench.place.write_text("somebody's notes, and long enough")
        os.kill(recording.pid, signal.SIGKILL)
        keep = group.create_task(recording.keep())
        await until(lambda: bench.said("the review store cannot be had any more"))
        (told, *_) = bench.said("the review store cannot be had any more")
        assert "is not a review store" in told["why"]
        assert told["hint"]
        keep.cancel()


@pytest.mark.skipif(programs() is None, reason="needs PostgreSQL")
@pytest.mark.timeout(120)
async def test_a_database_that_goes_and_comes_back_has_every_record(bench: Bench) -> None:
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        # What was committed outlives this end of the server, as it does in production.
        kept = ("listen_addresses=", "synchronous_commit=on", "shared_buffers=16MB")
        server = await asyncio.to_thread(Server, Path(folder), kept)
        try:
            url = await asyncio.to_thread(server.url)
            async with bench.recording(url) as recording:
                tee = recording.tee()
                tee.write(line(1))
                await until(lambda: bench.count(ReviewCount.STORED) == 1)
                await asyncio.to_thread(server.stop)
                tee.write(line(2))
                await until(lambda: bench.count(ReviewCount.ERRORS))
                tee.write(line(3))
                await asyncio.to_thread(server.restart)
                await until(lambda: bench.count(ReviewCount.STORED) == 3, 60.0)
                tee.close()
            assert not bench.count(ReviewCount.DROPPED)
            asked = "SELECT flow_id, gateway FROM record JOIN subject ON subject.id = subject_id"
            with open_store(url, is_reader=True) as store, store.connect() as connection:
                found = connection.exec_driver_sql(asked).all()
            assert sorted(map(tuple, found)) == [(f"0-{number}", "gw-1") for number in (1, 2, 3)]
        finally:
            await asyncio.to_thread(server.stop)


async def test_notes_wait_for_a_recorder_and_are_bounded(bench: Bench) -> None:
    async with bench.recording() as recording:
        assert recording.pid is not None
        os.kill(recording.pid, signal.SIGKILL)
        await until(lambda: recording._channel is None)
        for number in range(module.MAX_WAITING_NOTES + 10):
            recording.note(RuleHitsNote({"r": number}, 1.0))
        assert len(recording._notes) == module.MAX_WAITING_NOTES
    with open_store(str(bench.place), is_reader=True) as store, store.connect() as connection:
        packets = connection.execute(schema.rule_hits.select()).one().packets
    assert packets == sum(range(10, module.MAX_WAITING_NOTES + 10)), "the newest"


@pytest.mark.parametrize(
    ("log", "text"),
    [
        (LogOptions(), "all"),
        (LogOptions(allows=AllowRecords.NONE), "none"),
        (LogOptions(allows=AllowRecords.SAMPLE, sample_every=100), "1/100"),
    ],
)
async def test_allows_as_the_option_says_them(log: LogOptions, text: str) -> None:
    assert allows_text(log) == text


SUPERVISOR = """
import asyncio, os, sys
from egressproxy.observe.counters import Counters
from egressproxy.service.recorder_messages import RecorderSpec
from egressproxy.service.recording import Recording

async def main():
    spec = RecorderSpec(store=sys.argv[1], gateway="gw-1", max_age_days=30, max_bytes=1 << 30,
                        allows="all", since=1.0, workers=1)
    async with Recording(spec, Counters.create(1)) as recording:
        await recording.opened()
        recording.tee().write(sys.stdin.buffer.read())
        print(recording.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_supervisor_that_is_killed_loses_no_line_of_the_pipe(bench: Bench) -> None:
    """Its recorder hears of it, empties the pipe, stores, and ends by itself."""
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SUPERVISOR, str(bench.place)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert supervisor.stdin
    assert supervisor.stdout
    supervisor.stdin.write(b"".join(map(line, range(50))))
    supervisor.stdin.close()
    recorder = int(await supervisor.stdout.readline())
    supervisor.kill()
    await supervisor.wait()
    await until(lambda: is_gone(recorder))
    assert bench.flow_ids() == [f"0-{number}" for number in range(50)]

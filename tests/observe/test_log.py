from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from egressproxy.errors import ServiceError
from egressproxy.observe.log import RecordLog
from egressproxy.observe.tee import Tee, recorder_pipe
from egressproxy.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from egressproxy.observe.record import FlowRecord
    from tests.observe.conftest import Tally

    Make = Callable[..., FlowRecord]
    Open = Callable[..., RecordLog]

WORKER = """
import sys
from pathlib import Path
from egressproxy.observe.counters import Counters
from egressproxy.observe.log import RecordLog
from egressproxy.observe.tee import Tee, recorder_pipe
from egressproxy.observe.record import FlowRecord, Plane
from egressproxy.policy.verdict import Action, Reason
from egressproxy.settings import Settings
path, worker, records = sys.argv[1], sys.argv[2], int(sys.argv[3])
counters = Counters.create(1)
settings = Settings(log_rotate_bytes=100_000, log_rotate_files=500, log_queue_records=1_000_000)
log = RecordLog(None if path == "-" else Path(path), settings, counters.worker(0))
for number in range(records):
    log.write(FlowRecord(
        time=0.0, flow_id=f"{worker}-{number}", action=Action.ALLOW, reason=Reason.RULE,
        plane=Plane.EXPLICIT, protocol="tls", src_ip="10.0.0.1", src_port=1, dst_port=443,
        name="x" * 200))
log.close(30)
totals = counters.totals()
sys.exit(totals.log_dropped or totals.log_errors)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flows.jsonl"


@pytest.fixture
def open_log(path: Path, tally: Tally) -> Iterator[Open]:
    logs: list[RecordLog] = []

    def make(at: Path = path, **limits: Any) -> RecordLog:
        logs.append(RecordLog(at, Settings(**limits), tally))
        return logs[-1]

    yield make
    for log in logs:
        log.close(1.0)
        log._writer.join(5)
        assert not log._writer.is_alive()


def lines(*paths: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_records_are_lines_in_order(open_log: Open, make_record: Make, path: Path) -> None:
    log = open_log()
    for number in range(500):
        log.write(make_record(name=f"n{number}.example"))
    log.close()
    assert [line["name"] for line in lines(path)] == [f"n{n}.example" for n in range(500)]
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_record_is_there_soon_without_another(
    open_log: Open, make_record: Make, path: Path
) -> None:
    log = open_log()
    for number in range(20):  # each finds the writer asleep
        log.write(make_record(name=f"n{number}.example"))
        until(lambda number=number: len(lines(path)) == number + 1)  # type: ignore[misc]
        until(lambda: log._is_asleep)


def test_appends_to_what_is_there(open_log: Open, make_record: Make, path: Path) -> None:
    path.write_text('{"old":1}\n')
    log = open_log()
    log.write(make_record())
    log.close()
    assert [line.get("old") for line in lines(path)] == [1, None]


def test_processes_share_a_file_through_its_rotations(path: Path, tmp_path: Path) -> None:
    records = 1500
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(path), str(n), str(records)])
        for n in range(3)
    ]
    assert [worker.wait(50) for worker in workers] == [0, 0, 0]
    files = sorted(tmp_path.iterdir())
    assert len(files) > 10
    written = [line["flow_id"] for line in lines(*files)]
    assert len(written) == len(set(written)) == 3 * records
    assert all(file.stat().st_size <= 100_000 for file in files)
    # Each process's lines are in order through the files, oldest (the highest number) first.
    by_age = sorted(files, key=lambda file: -int("0" + file.suffix[1:].replace("jsonl", "")))
    for worker in range(3):
        own = [
            int(line["flow_id"][2:]) for line in lines(*by_age) if line["flow_id"][0] == str(worker)
        ]
        assert own == list(range(records))


def test_processes_share_stdout_line_by_line() -> None:
    records = 1000
    reader, writer = os.pipe()
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, "-", str(n), str(records)], stdout=writer)
        for n in range(2)
    ]
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        written = [json.loads(line)["flow_id"] for line in pipe]
    assert [worker.wait(30) for worker in workers] == [0, 0]
    assert len(written) == len(set(written)) == 2 * records


def test_only_so_many_rotated_files_are_kept(
    open_log: Open, make_record: Make, tmp_path: Path, path: Path
) -> None:
    log = open_log(log_rotate_bytes=2000, log_rotate_files=2)
    for number in range(500):
        log.write(make_record(name=f"n{number}.example"))
    log.close()
    assert {file.name for file in tmp_path.iterdir()} == {
        "flows.jsonl",
        "flows.jsonl.1",
        "flows.jsonl.2",
    }
    assert lines(path)[-1]["name"] == "n499.example"


def test_zero_never_rotates(open_log: Open, make_record: Make, tmp_path: Path) -> None:
    log = open_log(log_rotate_bytes=0)
    for number in range(500):
        log.write(make_record(name=f"n{number}.example"))
    log.close()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_queue_drops_and_counts_and_never_waits(
    open_log: Open, make_record: Make, path: Path, tally: Tally
) -> None:
    log = open_log(log_queue_records=100)
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # the writer is stuck, as on a hanging disk
        log.write(make_record(name="first.example"))
        until(lambda: not log._queue)
        before = time.monotonic()
        for number in range(1000):
            log.write(make_record(name=f"n{number}.example"))
        assert time.monotonic() - before < 1
        assert tally.counts["dropped"] == 900
    log.close()
    assert [line["name"] for line in lines(path)] == [
        "first.example",
        *(f"n{number}.example" for number in range(100)),
    ]
    assert tally.counts["dropped"] == 900


def test_close_does_not_wait_for_a_stuck_disk(
    open_log: Open, make_record: Make, path: Path, tally: Tally
) -> None:
    log = open_log()
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        log.write(make_record(name="first.example"))
        until(lambda: not log._queue)
        for number in range(10):
            log.write(make_record(name=f"n{number}.example"))
        before = time.monotonic()
        log.close(0.2)
        assert time.monotonic() - before < 2
        assert tally.counts["dropped"] == 10
        log.write(make_record())
        assert tally.counts["dropped"] == 11, "closed means closed"


def test_a_flood_is_folded(open_log: Open, make_record: Make, path: Path, tally: Tally) -> None:
    log = open_log(fold_window_s=3600.0)
    for port in range(1000):
        log.write(make_record(src_port=port))
    log.close()
    assert [line["count"] for line in lines(path)] == [1, 999], "the window's rest at close"
    assert tally.counts == {"folded": 999}


def test_a_fold_is_written_when_its_window_ends(
    open_log: Open, make_record: Make, path: Path
) -> None:
    log = open_log(fold_window_s=0.2)
    for _ in range(3):
        log.write(make_record())
    until(lambda: sum(line["count"] for line in lines(path)) == 3)
    assert len(lines(path)) == 2


def test_reopen_after_a_rename(open_log: Open, make_record: Make, path: Path) -> None:
    log = open_log()
    log.write(make_record(name="a.example"))
    until(lambda: path.stat().st_size > 0)
    moved = path.rename(path.with_name("moved"))
    log.reopen()
    until(path.exists)
    log.write(make_record(name="b.example"))
    log.close()
    assert [line["name"] for line in lines(moved)] == ["a.example"]
    assert [line["name"] for line in lines(path)] == ["b.example"]


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_moved_file_is_noticed_without_a_signal(
    open_log: Open, make_record: Make, path: Path, is_deleted: bool
) -> None:
    log = open_log()
    log.write(make_record(name="a.example"))
    until(lambda: path.stat().st_size > 0)
    if is_deleted:
        path.unlink()
    else:
        path.rename(path.with_name("moved"))
    log.write(make_record(name="b.example"))
    log.close()
    assert [line["name"] for line in lines(path)] == ["b.example"]


def test_a_full_disk_is_counted_and_survived(
    open_log: Open, make_record: Make, tally: Tally
) -> None:
    from pathlib import Path as RealPath

    log = open_log(RealPath("/dev/full"))
    for number in range(3):
        log.write(make_record(name=f"n{number}.example"))
    until(lambda: tally.counts["errors"] > 0)
    log.write(make_record(name="later.example"))
    log.close(0.3)
    assert tally.counts["dropped"] == 4


def test_a_folder_that_goes_and_comes_back(
    open_log: Open, make_record: Make, tmp_path: Path, tally: Tally
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = open_log(folder / "flows.jsonl")
    folder.rename(tmp_path / "away")
    log.write(make_record())
    until(lambda: tally.counts["errors"] > 0)
    folder.mkdir()
    log.close(5)
    assert len(lines(folder / "flows.jsonl")) == 1
    assert tally.counts["dropped"] == 0


def test_a_reopen_that_fails_keeps_the_old_file(
    open_log: Open, tmp_path: Path, tally: Tally
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = open_log(folder / "flows.jsonl")
    folder.rename(tmp_path / "away")
    log.reopen()
    until(lambda: tally.counts["errors"] == 1)


def test_a_file_that_cannot_be_opened_is_said_at_once(tmp_path: Path, tally: Tally) -> None:
    with pytest.raises(ServiceError, match="No such file"):
        RecordLog(tmp_path / "none" / "flows.jsonl", Settings(), tally)


def test_close_twice_and_reopen_after_it(open_log: Open, path: Path) -> None:
    log = open_log()
    log.close()
    log.close()
    log.reopen()
    assert path.exists()


def test_the_writer_may_end_before_close_has_rung(open_log: Open, make_record: Make) -> None:
    for _ in range(200):
        log = open_log()
        log.write(make_record())
        until(lambda log=log: log._is_asleep or not log._queue)  # type: ignore[misc]
        log.close()
        log._ring()
        log.write(make_record())


def test_nothing_is_left_behind(open_log: Open, make_record: Make) -> None:
    threads, before = threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        log = open_log()
        log.write(make_record())
        log.close()
        log._writer.join(5)
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_the_recorder_gets_the_same_lines(make_record: Make, path: Path, tally: Tally) -> None:
    reader, writer = recorder_pipe()
    log = RecordLog(path, Settings(fold_window_s=10), tally, Tee(writer))
    for number in range(300):
        log.write(make_record(name=f"n{number % 100}.example"))
    log.close()
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb") as file:
        assert file.read() == path.read_bytes(), "folds included, and the end is seen"
    assert "review_dropped" not in tally.counts


def test_a_recorder_that_does_not_read_costs_its_own_lines_only(
    make_record: Make, path: Path, tally: Tally
) -> None:
    reader, writer = recorder_pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    log = RecordLog(path, Settings(), tally, Tee(writer))
    for number in range(300):
        log.write(make_record(name=f"n{number}.example"))
    log.close()
    got = os.read(reader, 1 << 20)
    os.close(reader)
    assert len(lines(path)) == 300
    assert path.read_bytes().startswith(got)
    assert tally.counts["review_dropped"] == 300 - got.count(b"\n") > 0
    assert "dropped" not in tally.counts


def test_a_failing_disk_does_not_keep_lines_from_the_recorder(
    make_record: Make, path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = recorder_pipe()
    log = RecordLog(path, Settings(), tally, Tee(writer))
    monkeypatch.setattr(log._sink, "write", lambda lines: lines)
    log.write(make_record(name="a.example"))
    until(lambda: tally.counts["errors"] > 0)
    assert os.read(reader, 4096).count(b"a.example") == 1, "once, however often it is tried"
    log.close(0.1)
    log._writer.join(5)
    os.close(reader)

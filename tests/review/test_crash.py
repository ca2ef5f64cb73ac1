"""``kill -9`` of what writes, at moments chosen by chance: nothing that was told as stored is lost.

And nothing is there twice or in part: a batch is stored as a whole.
"""

from __future__ import annotations

import random
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict

import pytest
from sqlalchemy import func
from sqlalchemy import select as question

from egressproxy.observe.record import to_json_line
from egressproxy.review import schema
from egressproxy.review.bounds import Bounds
from egressproxy.review.importing import import_file
from egressproxy.review.store import Store, open_store
from egressproxy.review.writer import Writer
from tests.review.records import START, traffic

if TYPE_CHECKING:
    from sqlalchemy import Table

ROOT: Final = Path(__file__).parents[2]
BATCH: Final = 50
NOW: Final = START + schema.DAY_S

WRITING: Final = """
import sys
from egressproxy.review.bounds import Bounds
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer
from tests.review.records import traffic

place, first, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
writer = Writer(open_store(place), gateway="gw", bounds=Bounds())
records = list(traffic(40_000))
for start in range(first, len(records), batch):
    sys.stdin.readline()
    writer.add(records[start : start + batch])
    print(start + batch, flush=True)  # told: it must be there from now on
"""

IMPORTING: Final = """
import sys
from egressproxy.review import importing
from egressproxy.review.bounds import Bounds
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer

class Steps(Writer):
    def add(self, records, *, progress=None):
        sys.stdin.readline()
        added = super().add(records, progress=progress)
        print("added", flush=True)
        return added

importing.BATCH_RECORDS = 50
writer = Steps(open_store(sys.argv[1]), gateway="gw", bounds=Bounds())
importing.import_file(writer, sys.argv[2], now=float(sys.argv[3]))
"""

PRUNING: Final = """
import sys
from egressproxy.review import pruning
from egressproxy.review.bounds import Bounds
from egressproxy.review.store import open_store

pruning._ROWS = 20
store = open_store(sys.argv[1])
while True:
    pruning.prune(store, Bounds(max_age_days=1), float(sys.argv[2]))
    print("pruned", flush=True)
"""


class Moment(TypedDict):
    """When to kill."""

    steps: int
    after_s: float


def killed(script: str, *arguments: str, steps: int, after_s: float) -> list[str]:
    """Let a script go so many steps, kill it a moment after the last began, give what it said."""
    command = [sys.executable, "-c", script, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(b"go\n" * steps)
            process.stdin.flush()
            said = [process.stdout.readline() for _ in range(steps - 1)]
            select.select([], [], [], after_s)
        finally:
            process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
        process.wait()
    return [line.decode() for line in said if line.endswith(b"\n")]


def moment(dice: random.Random) -> Moment:
    """During the transaction of some step, before it or after it."""
    return {"steps": dice.randint(1, 12), "after_s": dice.uniform(0.0, 0.02)}


def total(store: Store, table: Table, column: str | None = None) -> int:
    what = func.count() if column is None else func.coalesce(func.sum(table.c[column]), 0)
    with store.connect() as connection:
        return int(connection.execute(question(what).select_from(table)).scalar_one())


def assert_whole(store: Store) -> None:
    if store.dialect == "sqlite":
        with store.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    hours = total(store, schema.hourly, "count")
    assert hours == total(store, schema.daily, "count")
    with store.connect() as connection:
        lost = (
            question(func.count())
            .select_from(schema.hourly)
            .where(schema.hourly.c.subject_id.not_in(question(schema.subject.c.id)))
        )
        assert connection.execute(lost).scalar() == 0


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_writer_killed_at_any_moment_loses_at_most_the_batch_it_wrote(place: str) -> None:
    dice = random.Random(4)
    stored = 0
    for _ in range(6):
        said = killed(WRITING, place, str(stored), str(BATCH), **moment(dice))
        told = int(said[-1]) if said else stored
        with open_store(place) as store:
            assert_whole(store)
            found = total(store, schema.record)
            assert found in (told, told + BATCH)
            assert found == total(store, schema.record, "count")
            assert found == total(store, schema.hourly, "count")
        stored = found
    assert stored > BATCH, "it was killed while it wrote"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_an_import_killed_at_any_moment_goes_on_where_it_was(place: str, tmp_path: Path) -> None:
    log = tmp_path / "flows.jsonl"
    log.write_bytes(b"".join(to_json_line(record) for record in traffic(6000)))
    open_store(place).close()
    dice = random.Random(5)
    for _ in range(4):
        killed(IMPORTING, place, str(log), str(NOW), **moment(dice))
        with open_store(place) as store:
            assert_whole(store)
            assert total(store, schema.record) % BATCH == 0
    with open_store(place) as store:
        before = total(store, schema.record)
        assert 0 < before < 6000, "it was killed while it read"
        done = import_file(Writer(store, gateway="gw", bounds=Bounds()), str(log), now=NOW)
        assert done.read == 6000 - before
        assert total(store, schema.hourly, "count") == 6000


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_pruning_killed_at_any_moment_leaves_a_whole_store(place: str) -> None:
    dice = random.Random(6)
    with open_store(place) as store:
        writer = Writer(store, gateway="gw", bounds=Bounds())
        for day in range(4):
            writer.add(list(traffic(1500, seed=day, start=START + day * schema.DAY_S)))
    for n in range(4):
        now = str(START + 4 * schema.DAY_S)
        killed(PRUNING, place, now, steps=1 + n % 2, after_s=dice.uniform(0.3, 0.6))
        with open_store(place) as store, store.connect() as connection:
            if store.dialect == "sqlite":
                assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    with open_store(place) as store:
        Writer(store, gateway="gw", bounds=Bounds(max_age_days=1)).prune(START + 4 * schema.DAY_S)
        assert_whole(store)
        assert total(store, schema.record) == 1500

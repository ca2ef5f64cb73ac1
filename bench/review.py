"""``python -m bench.review``: the review's store at ten million records, on both engines.

One day of a cluster's records goes in as the recorder writes it, a batch a transaction, which gives
the rate; the database then copies it to the days before, so that ten million take minutes. What is
asked is what commands and pages ask. Seconds are for orientation: engines are compared in one run.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, literal, select

from bench.machine import machine
from egressproxy.policy.networks import parse_network
from egressproxy.review import queries, schema
from egressproxy.review.bounds import Bounds
from egressproxy.review.model import Filter, Group
from egressproxy.review.pruning import stored_bytes
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer
from tests.review.postgresql import Server
from tests.review.records import START, traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Table

    from egressproxy.review.store import Store

OUT: Final = Path(__file__).with_name("out")
BATCH: Final = 2000
REPEATS: Final = 5
BOUNDS: Final = Bounds(
    max_age_days=3650,
    max_bytes=1 << 40,
    records_per_source_hour=1 << 30,
)
SERVER: Final = ("listen_addresses=", "shared_buffers=256MB", "max_wal_size=4GB")


@dataclass(slots=True)
class Result:
    """What was measured on one engine; ``asked`` has the seconds of each question."""

    records: int = 0
    rate: float = 0.0
    cpu_rate: float = 0.0
    size: int = 0
    asked: dict[str, float] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.review", description=__doc__)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=10, help="spread over so many")
    parser.add_argument("--engines", default="sqlite,postgresql")
    options = parser.parse_args()
    results = {
        engine: measured(engine, options.records, options.days)
        for engine in options.engines.split(",")
    }
    text = f"{machine()}\n\n{table(results)}\n"
    print(text)
    OUT.mkdir(exist_ok=True)
    (OUT / "review.md").write_text(text)


def measured(engine: str, records: int, days: int) -> Result:
    result = Result()
    with place(engine) as where, open_store(where) as store:
        end = START + days * schema.DAY_S
        write(store, records // days, end - schema.DAY_S, result)
        for day in range(1, days):
            for each in (schema.record, schema.hourly, schema.daily):
                copy(store, each, day)
        say(f"{engine}: copied")
        Writer(store, gateway="hub", bounds=BOUNDS).prune(end)
        with store.connect() as connection:
            counted = select(func.count()).select_from(schema.record)
            result.records = connection.execute(counted).scalar_one()
        result.size = stored_bytes(store)
        ask(store, end, result)
    return result


@contextlib.contextmanager
def place(engine: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="review-", ignore_cleanup_errors=True) as folder:
        if engine == "sqlite":
            yield str(Path(folder) / "review.db")
            return
        server = Server(Path(folder), SERVER)
        try:
            yield server.url()
        finally:
            server.stop()


def write(store: Store, count: int, start: float, result: Result) -> None:
    """As the recorder does; the time that making the records takes is not counted."""
    writer = Writer(store, gateway="hub", bounds=BOUNDS)
    wall = cpu = 0.0
    batch = []
    for number, record in enumerate(traffic(count, start=start), start=1):
        batch.append(record)
        if len(batch) == BATCH or number == count:
            at, on_cpu = time.perf_counter(), time.process_time()
            writer.add(batch)
            wall += time.perf_counter() - at
            cpu += time.process_time() - on_cpu
            batch = []
    result.rate, result.cpu_rate = count / wall, count / cpu
    say(f"{store.dialect}: {count:,} written, {result.rate:,.0f}/s")


def copy(store: Store, table: Table, days: int) -> None:
    """The day that was written, so many days earlier."""
    back = days * schema.DAY_S
    columns = [column for column in table.c if column is not table.c.get("id")]
    moment = table.c.at if table is schema.record else table.c.bucket
    moved = {"at", "bucket", "first_at", "last_at"}
    values = [
        (column - back if column.name in moved else column).label(column.name) for column in columns
    ]
    with store.begin() as connection:
        first = connection.execute(select(func.max(schema.daily.c.bucket))).scalar_one()
        chosen = select(*values).where(moment >= literal(first))
        connection.execute(table.insert().from_select(columns, chosen))


def ask(store: Store, end: float, result: Result) -> None:
    """Each question so often, after it was asked once."""
    for name, question in questions(store, end).items():
        question()
        times = []
        for _ in range(REPEATS):
            at = time.perf_counter()
            question()
            times.append(time.perf_counter() - at)
        result.asked[name] = statistics.median(times)
        say(f"{store.dialect}: {name}: {result.asked[name]:.3f} s")


def questions(store: Store, end: float) -> dict[str, Callable[[], object]]:
    day = Filter(since=end - schema.DAY_S, until=end)
    hour = Filter(since=end - 3600, until=end)
    ever = Filter(since=START, until=end)
    one_name = Filter(since=START, until=end, names=("mcr.mircosoft.com",))
    suffix = Filter(since=START, until=end, names=("*.blob.storage.azure.net",))
    pods = Filter(since=START, until=end, sources=(parse_network("10.244.7.0/24"),))
    flows = Filter(since=START, until=end, is_denied=False)
    return {
        "top 20 denied names, last hour": lambda: queries.top(store, hour, Group.NAME, limit=20),
        "top 20 denied names, last day": lambda: queries.top(store, day, Group.NAME, limit=20),
        "top 20 denied names, all days": lambda: queries.top(store, ever, Group.NAME, limit=20),
        "top 20 sources, all days": lambda: queries.top(store, ever, Group.SOURCE, limit=20),
        "by reason, all days": lambda: queries.top(store, ever, Group.REASON, limit=20),
        "top 20 allowed names, all days": lambda: queries.top(store, flows, Group.NAME, limit=20),
        "a suffix, all days": lambda: queries.top(store, suffix, Group.NAME, limit=20),
        "a range of sources, all days": lambda: queries.top(store, pods, Group.NAME, limit=20),
        "every denied subject, last day": lambda: queries.subjects(store, day),
        "denies by the hour, last day": lambda: queries.series(store, day, step_s=3600),
        "newest 50 denies": lambda: queries.records(store, Filter(), limit=50),
        "newest 50 denies of one name": lambda: queries.records(store, one_name, limit=50),
    }


def table(results: dict[str, Result]) -> str:
    """A row a question, a column an engine."""
    engines = list(results)
    rows = [
        ["", *engines],
        ["---"] * (len(engines) + 1),
        ["raw records", *(f"{each.records:,}" for each in results.values())],
        ["size (GB)", *(f"{each.size / 1e9:.2f}" for each in results.values())],
        ["written, records/s", *(f"{each.rate:,.0f}" for each in results.values())],
        ["the same by our own CPU", *(f"{each.cpu_rate:,.0f}" for each in results.values())],
    ]
    rows += [
        [f"{question} (s)", *(f"{each.asked[question]:.3f}" for each in results.values())]
        for question in next(iter(results.values())).asked
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()

from __future__ import annotations

import gzip
import io
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from egressproxy.errors import StoreError
from egressproxy.observe.record import MAX_LINE_BYTES, to_json_line
from egressproxy.review import importing, schema
from egressproxy.review.bounds import Bounds
from egressproxy.review.importing import import_file
from egressproxy.review.store import Store, open_store
from egressproxy.review.writer import Writer
from tests.review.records import START, flow, traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from egressproxy.review.importing import Imported

NOW = START + schema.DAY_S


def lines(count: int, *, first: int = 0) -> list[bytes]:
    return [to_json_line(record) for record in list(traffic(count))[first:]]


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "review.db")) as store:
        yield store


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "flows.jsonl"


def run(store: Store, path: Path | str, *, now: float = NOW, gateway: str = "gw") -> Imported:
    return import_file(Writer(store, gateway=gateway, bounds=Bounds()), str(path), now=now)


def stored(store: Store) -> int:
    with store.connect() as connection:
        rows: int = connection.execute(select(func.count()).select_from(schema.record)).scalar_one()
        return rows


def test_a_file_is_stored_once(store: Store, log: Path) -> None:
    log.write_bytes(b"".join(lines(500)))
    done = run(store, log)
    assert (done.read, done.skipped, done.bad, done.known_bytes, done.problem) == (500, 0, 0, 0, "")
    again = run(store, log)
    assert (again.read, again.known_bytes) == (0, log.stat().st_size)
    assert stored(store) == 500


def test_of_a_file_that_grew_only_what_is_new(store: Store, log: Path) -> None:
    every = lines(300)
    for first, last in pairwise((0, 1, 100, 100, 300)):
        with log.open("ab") as file:
            file.writelines(every[first:last])
        assert run(store, log).read == last - first
    assert stored(store) == 300


def test_a_file_that_was_rotated_and_compressed(sqlite_store: Store, log: Path) -> None:
    every = lines(300)
    log.write_bytes(b"".join(every[:100]))
    assert run(sqlite_store, log).read == 100
    older = log.with_name("flows.jsonl.1")
    with log.open("ab") as file:
        file.writelines(every[100:200])
    log.rename(older)
    log.write_bytes(b"".join(every[200:]))
    packed = log.with_name("flows.jsonl.2.gz")
    packed.write_bytes(gzip.compress(older.read_bytes()))
    assert run(sqlite_store, packed).read == 100
    assert run(sqlite_store, older).read == 0
    assert run(sqlite_store, log).read == 100
    assert stored(sqlite_store) == 300


def test_gzip_is_told_by_its_content_and_may_have_members(sqlite_store: Store, log: Path) -> None:
    every = lines(20)
    log.write_bytes(b"".join(gzip.compress(line) for line in every))
    assert run(sqlite_store, log).read == 20


@pytest.mark.parametrize("is_packed", [False, True])
def test_standard_input(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch, *, is_packed: bool
) -> None:
    content = b"".join(lines(20))
    given_ = io.BytesIO(gzip.compress(content) if is_packed else content)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(given_))
    assert run(sqlite_store, "-").read == 20
    assert not given_.closed


def test_bad_lines_are_counted_with_the_first_numbers(sqlite_store: Store, log: Path) -> None:
    good = lines(3)
    future = to_json_line(flow(time=NOW + 2 * schema.DAY_S))
    log.write_bytes(
        b"".join(
            [
                b"\n",
                b"started\n",
                good[0],
                b"\xff\xfe\0\n",
                b"[" * 3000 + b"\n",
                b"   \n",
                good[1],
                b"x" * (1 << 20) + b"\n",
                future,
                b'{"schema": 2}\n' * 5,
                good[2],
            ]
        )
    )
    done = run(sqlite_store, log)
    assert (done.read, done.bad, done.bad_lines) == (3, 10, (2, 4, 5, 8, 9))
    with log.open("ab") as file:
        file.write(b"no\n")
    again = run(sqlite_store, log)
    assert (again.read, again.bad, again.bad_lines) == (0, 1, (16,))


def test_files_without_records(sqlite_store: Store, log: Path) -> None:
    for content in (b"", b"\n\n", b"nothing of ours\n"):
        log.write_bytes(content)
        done = run(sqlite_store, log)
        assert (done.read, done.bad) == (0, content.count(b"ours"))
    assert stored(sqlite_store) == 0


def test_a_line_that_is_being_written_waits(sqlite_store: Store, log: Path) -> None:
    every = lines(3)
    whole = b"".join(every)
    for end, read in (
        (len(whole) - 40, 2),  # half of the last line
        (len(whole) - 1, 1),  # all of it but its end
        (len(whole), 0),
    ):
        log.write_bytes(whole[:end])
        done = run(sqlite_store, log)
        assert (done.read, done.bad) == (read, 0)
    assert stored(sqlite_store) == 3


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.floats(0, 1), min_size=1, max_size=5), seed=st.integers(0, 5))
def test_cut_anywhere_it_is_stored_once(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[float], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("cuts")
    content = b"".join(to_json_line(record) for record in traffic(30, seed=seed))
    log = folder / "log"
    with open_store(str(folder / "review.db")) as store:
        for cut in [*sorted(cuts), 1.0]:
            log.write_bytes(content[: math.floor(cut * len(content))])
            assert run(store, log).bad == 0
        assert stored(store) == 30


def test_a_file_cut_short_adds_nothing(sqlite_store: Store, log: Path) -> None:
    every = lines(30)
    log.write_bytes(b"".join(every))
    run(sqlite_store, log)
    log.write_bytes(b"".join(every[:10]))
    done = run(sqlite_store, log)
    assert (done.read, done.bad) == (0, 0)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda packed: packed[: len(packed) // 2], "not complete"),
        (lambda packed: packed[:400] + b"\0" * 50 + packed[450:], "damaged"),
        (lambda packed: packed + b"rest", "damaged"),
    ],
    ids=["cut", "overwritten", "trailing"],
)
def test_a_damaged_gzip_file_gives_what_it_has(
    sqlite_store: Store, log: Path, damage: Callable[[bytes], bytes], words: str
) -> None:
    log.write_bytes(damage(gzip.compress(b"".join(lines(2000)))))
    done = run(sqlite_store, log)
    assert words in done.problem
    assert done.read == stored(sqlite_store)
    log.write_bytes(gzip.compress(b"".join(lines(2000))))
    assert run(sqlite_store, log).problem == ""
    assert stored(sqlite_store) == 2000


def test_a_gzip_bomb_takes_no_memory(sqlite_store: Store, log: Path) -> None:
    with gzip.open(log, "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(b" " * (1 << 20))
        file.write(b"\n")
        file.writelines(lines(3))
    done = run(sqlite_store, log)
    assert (done.read, done.bad) == (3, 0)


def test_what_would_not_be_kept_is_skipped(sqlite_store: Store, log: Path) -> None:
    days = [flow(time=START - day * schema.DAY_S) for day in (40, 31, 29, 1, 0)]
    log.write_bytes(b"".join(map(to_json_line, days)))
    done = run(sqlite_store, log, now=START)
    assert (done.read, done.skipped) == (3, 2)


def test_of_a_gateway_that_records_itself_what_its_recorder_lost(store: Store, log: Path) -> None:
    records = list(traffic(3000))
    writer = Writer(store, gateway="gw", bounds=Bounds())
    writer.note_recording(since=records[100].time, allows="all")
    lost = set(range(1000, 1500))
    writer.add([record for n, record in enumerate(records) if n >= 100 and n not in lost])
    log.write_bytes(b"".join(map(to_json_line, records)))
    done = run(store, log, gateway="gw")
    assert (done.read, done.skipped) == (600, 2400), "and what it had not recorded yet"
    assert stored(store) == 3000
    with store.connect() as connection:
        ids = list(connection.execute(select(schema.record.c.flow_id)).scalars())
    assert len(set(ids)) == 3000


def test_what_another_gateway_records_does_not_matter(sqlite_store: Store, log: Path) -> None:
    log.write_bytes(b"".join(lines(100)))
    Writer(sqlite_store, gateway="other", bounds=Bounds()).note_recording(since=0.0, allows="all")
    assert run(sqlite_store, log).read == 100


def test_a_long_import_stays_within_the_bounds(
    sqlite_store: Store, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "PRUNE_RECORDS", 2000)
    pruned: list[float] = []
    prune = Writer.prune

    def counted(self: Writer, now: float) -> object:
        pruned.append(now)
        return prune(self, now)

    monkeypatch.setattr(Writer, "prune", counted)
    log.write_bytes(b"".join(lines(5000)))
    assert run(sqlite_store, log).read == 5000
    assert pruned == [NOW] * 3


def test_a_store_that_fails_remembers_how_far_it_was(
    sqlite_store: Store, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH_RECORDS", 100)
    log.write_bytes(b"".join(lines(1000)))
    add = Writer.add
    left = iter(range(4))

    def failing(self: Writer, *args: object, **kwargs: object) -> object:
        if next(left, None) is None:
            raise StoreError("the disk is full")
        return add(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "add", failing)
        with pytest.raises(StoreError, match="disk is full"):
            run(sqlite_store, log)
    assert stored(sqlite_store) == 400
    assert run(sqlite_store, log).read == 600


@pytest.mark.parametrize("make", [None, Path.mkdir], ids=["missing", "a folder"])
def test_what_cannot_be_read(
    sqlite_store: Store, log: Path, make: Callable[[Path], None] | None
) -> None:
    if make is not None:
        make(log)
    with pytest.raises(StoreError, match=r"flows\.jsonl cannot be read"):
        run(sqlite_store, log)


def test_the_longest_line_of_ours(sqlite_store: Store, log: Path) -> None:
    body = json.loads(lines(1)[0])
    log.write_bytes(json.dumps(body).encode().ljust(MAX_LINE_BYTES - 1) + b"\n")
    assert run(sqlite_store, log).read == 1

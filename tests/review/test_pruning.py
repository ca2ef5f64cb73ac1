from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from egressproxy.policy.verdict import Action
from egressproxy.review import pruning, schema
from egressproxy.review.bounds import Bounds
from egressproxy.review.model import Filter
from egressproxy.review.pruning import Pruned, prune, stored_bytes
from egressproxy.review.queries import subjects
from egressproxy.review.store import open_store
from egressproxy.review.writer import Progress, Writer
from tests.review.records import START, flow, traffic

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Table

    from egressproxy.review.store import Store
    from tests.review.postgresql import Server

DAY_S = schema.DAY_S
COUNTED = ("record", "hourly", "daily", "subject", "seen")


def fill(store: Store, days: int, a_day: int = 200) -> float:
    """So many days, each with names of its own, and the moment after."""
    writer = Writer(store, gateway="gw", bounds=Bounds())
    for day in range(days):
        start = START + day * DAY_S
        writer.add(list(traffic(a_day, seed=day, start=start)))
        writer.add([flow(time=start, name=f"of-day-{day}.example")])
    return START + days * DAY_S


def sizes(store: Store) -> dict[str, int]:
    with store.connect() as connection:
        return {
            name: connection.execute(
                select(func.count()).select_from(schema.metadata.tables[name])
            ).scalar_one()
            for name in COUNTED
        }


def span(store: Store, table: Table, column: str) -> tuple[float, float]:
    with store.connect() as connection:
        asked = select(func.min(table.c[column]), func.max(table.c[column]))
        first, last = connection.execute(asked).one()
        return first, last


def assert_whole(store: Store) -> None:
    """No count without its subject, no subject without a count, days the sum of their hours."""
    with store.connect() as connection:
        known = set(connection.execute(select(schema.subject.c.id)).scalars())
        for table in (schema.hourly, schema.record):
            assert set(connection.execute(select(table.c.subject_id)).scalars()) <= known
        assert set(connection.execute(select(schema.daily.c.subject_id)).scalars()) == known
        hours = select(func.sum(schema.hourly.c["count"]))
        days = select(func.sum(schema.daily.c["count"]))
        assert connection.execute(hours).scalar() == connection.execute(days).scalar()


def test_within_its_bounds_nothing_goes(store: Store) -> None:
    now = fill(store, 3)
    before = sizes(store)
    assert prune(store, Bounds(), now) == Pruned()
    assert sizes(store) == before


def test_what_is_older_goes_and_names_stay(store: Store) -> None:
    now = fill(store, 5)
    before = sizes(store)
    done = prune(store, Bounds(max_age_days=2), now)
    after = sizes(store)
    assert before["record"] - after["record"] == done.records > 0
    assert before["subject"] - after["subject"] == done.subjects > 0
    assert before["seen"] == after["seen"]
    oldest = now - 2 * DAY_S
    assert span(store, schema.record, "at")[0] >= oldest
    assert span(store, schema.hourly, "bucket")[0] >= oldest
    assert span(store, schema.daily, "bucket")[0] == oldest
    assert_whole(store)


def test_a_day_is_counted_whole_until_all_of_it_is_too_old(store: Store) -> None:
    now = fill(store, 3) + DAY_S / 2
    prune(store, Bounds(max_age_days=2), now)
    assert span(store, schema.record, "at")[0] >= now - 2 * DAY_S
    assert span(store, schema.daily, "bucket")[0] == START + DAY_S
    assert span(store, schema.hourly, "bucket")[0] == START + DAY_S
    assert_whole(store)


def test_everything_can_go(store: Store) -> None:
    now = fill(store, 2) + 100 * DAY_S
    prune(store, Bounds(), now)
    assert sizes(store) == {**dict.fromkeys(COUNTED, 0), "seen": sizes(store)["seen"]}
    fill(store, 1)
    assert_whole(store)


def test_history_that_is_too_old_goes(store: Store) -> None:
    writer = Writer(store, gateway="gw", bounds=Bounds())
    for day in (0, 40):
        at = START + day * DAY_S
        writer.note_reload(at=at, outcome="applied", digest="", previous="", report="{}")
        writer.note_rule_hits({"ntp": 1}, at=at)
        writer.add([], progress=Progress(bytes([day]) * 16, 1, at))
        writer.note_recording(since=at, allows="all")
        writer.note_recording(since=at + 1, allows="none")
    prune(store, Bounds(), START + 41 * DAY_S)
    later = START + 40 * DAY_S
    assert span(store, schema.reload, "at") == (later, later)
    assert span(store, schema.rule_hits, "bucket") == (later, later)
    assert span(store, schema.imported, "at") == (later, later)
    assert span(store, schema.recording, "since") == (START + 1, later + 1), "what held since then"


def test_of_very_many_reloads_the_newest_stay(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "_RELOADS_KEPT", 3)
    writer = Writer(store, gateway="gw", bounds=Bounds())
    for second in range(9):
        at = START + second
        writer.note_reload(at=at, outcome="applied", digest="", previous="", report="{}")
    prune(store, Bounds(), START)
    assert span(store, schema.reload, "at") == (START + 6, START + 8)


@pytest.mark.parametrize("rows", [7, 10_000])
def test_raw_records_go_before_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(pruning, "_ROWS", rows)
    now = fill(store, 4)
    before = sizes(store)
    bound = stored_bytes(store) - 20_000
    done = prune(store, Bounds(max_bytes=bound), now)
    after = sizes(store)
    assert stored_bytes(store) <= bound
    assert done.records == before["record"] - after["record"] > 0
    assert {name: after[name] for name in COUNTED[1:]} == {n: before[n] for n in COUNTED[1:]}
    if after["record"]:
        assert span(store, schema.record, "at")[0] > START + 100, "the oldest first"
    assert prune(store, Bounds(max_bytes=bound), now) == Pruned(), "not at every turn"


def test_where_raw_records_were_cut_hours_are_counted(store: Store) -> None:
    """Also when the record of a flow that began before comes afterwards, which is the oldest."""
    writer = Writer(store, gateway="gw", bounds=Bounds())
    writer.add([flow(time=START + minute * 60, flow_id=f"f{minute}") for minute in range(100)])
    hour = Filter(since=START + 1800, until=START + 6000)
    assert sum(each.count for each in subjects(store, hour)) == 70
    assert pruning._delete_oldest(store, 90) == 90
    assert sum(each.count for each in subjects(store, hour)) == 100, "whole hours"
    writer.add([flow(time=START - 10 * DAY_S, action=Action.ALLOW, close_reason="idle")])
    assert sum(each.count for each in subjects(store, hour)) == 100
    assert pruning._delete_oldest(store, 1) == 1
    assert sum(each.count for each in subjects(store, hour)) == 100
    late = Filter(since=START + 90 * 60, until=START + 6000)
    assert sum(each.count for each in subjects(store, late)) == 10, "there they are"


def test_then_the_oldest_days_of_counts(store: Store) -> None:
    now = fill(store, 6, 400)
    before = sizes(store)
    prune(store, Bounds(max_bytes=stored_bytes(store) // 3), now)
    after = sizes(store)
    assert after["record"] == 0
    assert 0 < after["daily"] < before["daily"]
    first, last = span(store, schema.daily, "bucket")
    assert START < first <= last == START + 5 * DAY_S
    assert_whole(store)


def test_the_last_day_of_counts_stays_whatever_the_bound(store: Store) -> None:
    now = fill(store, 3)
    prune(store, Bounds(max_bytes=1), now)
    assert span(store, schema.daily, "bucket") == (START + 2 * DAY_S,) * 2
    assert_whole(store)


def test_a_writer_notices_that_its_subjects_are_gone(store: Store) -> None:
    """Which another process may have deleted: the numbers it remembers are nobody's now."""
    writer = Writer(store, gateway="gw", bounds=Bounds())
    writer.add([flow(), flow(name="b.example")])
    prune(store, Bounds(), START + 40 * DAY_S)
    later = START + 40 * DAY_S
    writer.add([flow(time=later)])
    assert sizes(store)["subject"] == 1
    assert_whole(store)


def test_numbers_of_records_are_never_given_again(store: Store) -> None:
    writer = Writer(store, gateway="gw", bounds=Bounds())
    writer.add([flow()] * 5)
    last = span(store, schema.record, "id")[1]
    prune(store, Bounds(), START + 40 * DAY_S)
    writer.add([flow(time=START + 40 * DAY_S)])
    assert span(store, schema.record, "id")[0] == last + 1, "or a live tail would miss it"


def test_names_not_seen_for_longest_are_forgotten(store: Store) -> None:
    writer = Writer(store, gateway="gw", bounds=Bounds())
    writer.add([flow(time=START + n, name=f"n{n}.example") for n in range(50)])
    writer.add([flow(time=START + 10_000, name="n0.example")])
    done = prune(store, Bounds(max_names=20), START)
    with store.connect() as connection:
        names = set(connection.execute(select(schema.seen.c.name)).scalars())
    assert done.names == 50 - len(names)
    assert names == {"n0.example"} | {f"n{n}.example" for n in range(50 - 17, 50)}
    assert prune(store, Bounds(max_names=20), START).names == 0


def test_the_file_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "review.db"
    with open_store(str(path)) as store:
        now = fill(store, 4, 1000)
        store.close()  # which moves the log into the file
        before = path.stat().st_size
        prune(store, Bounds(max_age_days=1), now)
    assert path.stat().st_size < before / 2
    with open_store(str(path)) as store, store.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def test_what_a_row_of_postgresql_takes(postgresql_server: Server) -> None:
    """The estimate against what the server says of tables that only grew."""
    with open_store(postgresql_server.url()) as store:
        fill(store, 3, 4000)
        with store.connect() as connection:
            whole = sum(
                connection.execute(select(func.pg_total_relation_size(name))).scalar_one()
                for name in COUNTED
            )
            estimated = pruning._rows_bytes(connection)
    assert 0.6 < estimated / whole < 1.6


def test_others_write_while_it_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two of its transactions another can write what then stays."""
    monkeypatch.setattr(pruning, "_ROWS", 50)
    now = fill(store, 3)
    other = Writer(store, gateway="other", bounds=Bounds())
    written = iter(range(5))
    original = store.begin

    def begin() -> object:
        number = next(written, None)
        if number is not None:
            monkeypatch.setattr(store, "begin", original)
            other.add([flow(time=now, name=f"w{number}.example")])
            monkeypatch.setattr(store, "begin", begin)
        return original()

    monkeypatch.setattr(store, "begin", begin)
    prune(store, Bounds(max_age_days=1), now)
    monkeypatch.undo()
    with store.connect() as connection:
        names = set(connection.execute(select(schema.subject.c.name)).scalars())
    assert {f"w{number}.example" for number in range(5)} <= names
    assert_whole(store)

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from egressproxy.errors import StoreError
from egressproxy.observe.record import NameSource, Plane
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review import schema
from egressproxy.review.batch import flows_of
from egressproxy.review.bounds import Bounds
from egressproxy.review.store import Store, open_store
from egressproxy.review.writer import Progress, Writer
from tests.review.records import POLICY, START, flow, traffic

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Table


AUDITED: dict[str, Any] = {"action": Action.ALLOW, "would_deny": True}


def writer_of(store: Store, **bounds: int) -> Writer:
    return Writer(store, gateway="gw-1", bounds=Bounds(**bounds))


def rows(store: Store, table: Table) -> list[dict[str, Any]]:
    with store.connect() as connection:
        ordered = select(table).order_by(*table.primary_key.columns)
        return [dict(row) for row in connection.execute(ordered).mappings()]


def counts(store: Store, table: Table) -> Counter[tuple[Any, ...]]:
    """Flows of each table of counts, by name and bucket."""
    subject, sums = schema.subject.c, table.c
    joined = select(sums.bucket, subject.name, sums["count"]).join_from(
        table, schema.subject, subject.id == sums.subject_id
    )
    found: Counter[tuple[Any, ...]] = Counter()
    with store.connect() as connection:
        for bucket, name, count in connection.execute(joined):
            found[bucket, name] += count
    return found


def test_a_record_in_every_table(store: Store) -> None:
    record = flow(
        time=START + 0.25,
        rule="r",
        source_group="cluster",
        note="harmless",
        alpn=("konnectivity", "h2"),
        tls_versions=("1.3",),
        ech=True,
        hello_split=True,
        dialled_ip="20.1.2.4",
        destination_match="no",
        bytes_up=3,
        bytes_down=4,
        requests=5,
        duration_s=0.5,
        policy=POLICY,
        count=6,
    )
    added = writer_of(store).add([record])
    assert added == (1, 0, ("evil.example",))
    (subject,) = rows(store, schema.subject)
    number = subject.pop("id")
    assert len(subject.pop("digest")) == 16
    assert subject.pop("src_key") == schema.address_key("10.240.0.4")
    assert subject == {
        "gateway": "gw-1",
        "action": "deny",
        "reason": "default_deny",
        "rule": "r",
        "decided_by": "none",
        "would_deny": False,
        "plane": "transparent",
        "protocol": "tls",
        "src_ip": "10.240.0.4",
        "source_group": "cluster",
        "dst_ip": "20.1.2.3",
        "dst_port": 443,
        "name": "evil.example",
        "name_source": "sni",
        "note": "harmless",
        "alpn": '["konnectivity", "h2"]',
        "ech": True,
        "hello_split": True,
        "is_overflow": False,
    }
    (raw,) = rows(store, schema.record)
    assert raw == {
        "id": raw["id"],
        "at": START + 0.25,
        "subject_id": number,
        "flow_id": "0-1",
        "src_port": 50123,
        "dst_ip": "20.1.2.3",
        "dialled_ip": "20.1.2.4",
        "tls_versions": '["1.3"]',
        "destination_match": "no",
        "bytes_up": 3,
        "bytes_down": 4,
        "requests": 5,
        "duration_s": 0.5,
        "close_reason": "refused",
        "policy": POLICY[:16],
        "count": 6,
    }
    sums = {
        "bucket": int(START),
        "subject_id": number,
        "count": 6,
        "bytes_up": 3,
        "bytes_down": 4,
        "first_at": START + 0.25,
        "last_at": START + 0.25,
    }
    assert rows(store, schema.hourly) == rows(store, schema.daily) == [sums]
    assert rows(store, schema.seen) == [
        {"name": "evil.example", "first_at": START + 0.25, "last_at": START + 0.25}
    ]


TELLS_APART: dict[str, tuple[Any, Any]] = {
    "action": (Action.ALLOW, Action.DENY),
    "reason": (Reason.RULE, Reason.DEFAULT_DENY),
    "rule": ("a", None),
    "would_deny": (True, False),
    "plane": (Plane.EXPLICIT, Plane.TRANSPARENT),
    "protocol": ("tls", "http"),
    "src_ip": ("10.0.0.1", "10.0.0.2"),
    "source_group": ("a", "b"),
    "dst_port": (443, 8443),
    "name": ("a.example", "b.example"),
    "name_source": (NameSource.SNI, NameSource.CONNECT),
    "alpn": (("h2",), ("h2", "http/1.1")),
    "ech": (True, False),
    "hello_split": (True, False),
}
THE_SAME: dict[str, tuple[Any, Any]] = {
    "time": (START, START + 5),
    "flow_id": ("0-1", "0-2"),
    "src_port": (1, 2),
    "dst_ip": ("20.0.0.1", "20.0.0.2"),
    "note": ("", "harmless"),
    "tls_versions": (("1.3",), ()),
    "dialled_ip": ("20.0.0.1", None),
    "close_reason": ("a", "b"),
    "policy": ("a", "b"),
    "bytes_up": (1, 2),
    "duration_s": (1.0, 2.0),
    "count": (1, 2),
}


def test_what_tells_subjects_apart(store: Store) -> None:
    for field, values in TELLS_APART.items():
        for _ in range(2):  # in the same way after a restart
            writer = Writer(store, gateway=field, bounds=Bounds())
            writer.add([flow(**{field: value}) for value in values])
    made = Counter(row["gateway"] for row in rows(store, schema.subject))
    assert made == dict.fromkeys(TELLS_APART, 2)


def test_what_does_not(store: Store) -> None:
    for field, values in THE_SAME.items():
        writer = Writer(store, gateway=field, bounds=Bounds())
        writer.add([flow(**{field: value}) for value in values])
    made = Counter(row["gateway"] for row in rows(store, schema.subject))
    assert made == dict.fromkeys(THE_SAME, 1)


def test_the_address_tells_nameless_flows_apart(store: Store) -> None:
    nameless = {"name": None, "name_source": NameSource.NONE}
    addresses = ("20.0.0.1", "20.0.0.2", None)
    writer_of(store).add([flow(**nameless, dst_ip=address) for address in addresses])
    assert {row["dst_ip"] for row in rows(store, schema.subject)} == set(addresses)


def test_gateways_have_subjects_of_their_own(store: Store) -> None:
    for gateway in ("gw-1", "gw-2"):
        Writer(store, gateway=gateway, bounds=Bounds()).add([flow()])
    assert [row["gateway"] for row in rows(store, schema.subject)] == ["gw-1", "gw-2"]
    assert len(rows(store, schema.seen)) == 1


def test_where_a_name_led_last_is_written_once_an_hour(store: Store) -> None:
    writer = writer_of(store)
    seen = []
    for minutes, address in ((0, "20.0.0.1"), (30, "20.0.0.2"), (61, "20.0.0.3")):
        writer.add([flow(time=START + 60 * minutes, dst_ip=address, note=address)])
        (row,) = rows(store, schema.subject)
        seen.append((row["dst_ip"], row["note"]))
    assert seen == [("20.0.0.1",) * 2, ("20.0.0.1",) * 2, ("20.0.0.3",) * 2]
    again = writer_of(store)
    for address in ("20.0.0.4", "20.0.0.5", "20.0.0.6"):
        again.add([flow(time=START + 3700, dst_ip=address)])
    assert [row["dst_ip"] for row in rows(store, schema.subject)] == ["20.0.0.5"]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_counts_do_not_depend_on_batches_or_restarts(tmp_path: Path, data: st.DataObject) -> None:
    records = list(traffic(120, seed=data.draw(st.integers(0, 9)), span_s=3 * schema.DAY_S))
    cuts = data.draw(st.lists(st.integers(0, 120), max_size=6).map(sorted))
    name = f"{uuid4()}.db"
    expected: Counter[tuple[Any, ...]] = Counter()
    for record in records:
        expected[schema.hour_of(record.time), record.name] += flows_of(record)
    with open_store(str(tmp_path / name)) as store:
        writer = writer_of(store)
        for first, last in itertools.pairwise((0, *cuts, 120)):
            if data.draw(st.booleans()):
                writer = writer_of(store)
            writer.add(records[first:last])
        assert counts(store, schema.hourly) == expected
        by_day: Counter[tuple[Any, ...]] = Counter()
        for (hour, target), count in expected.items():
            by_day[schema.day_of(hour), target] += count
        assert counts(store, schema.daily) == by_day
        assert sum(row["count"] for row in rows(store, schema.record)) == expected.total()


def test_both_databases_say_the_same(store: Store, tmp_path: Path) -> None:
    records = list(traffic(2000, span_s=30 * 3600.0))
    with open_store(str(tmp_path / "other.db")) as other:
        for each in (store, other):
            writer = writer_of(each, subjects_per_source_hour=3, records_per_source_hour=5)
            for start in range(0, 2000, 500):
                writer.add(records[start : start + 500])
        tables = (schema.subject, schema.hourly, schema.daily, schema.record, schema.seen)
        for table in tables:
            assert rows(store, table) == rows(other, table), table.name


HOSTILE = (
    "<script>alert(1)</script>",
    "'; DROP TABLE record; --",
    "%s %(name)s :name ? {} \\",
    "=cmd|' /C calc'!A0",
    "a\0b",
    "\N{RIGHT-TO-LEFT OVERRIDE}moc.elgoog",
    "\x1b[31mred\x07",
    "\ud800",
    "é" * 253,
    "\N{PILE OF POO}",
    "",
)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_texts_are_kept_as_texts(store: Store, text: str) -> None:
    fields = ("flow_id", "rule", "source_group", "name", "note", "protocol", "src_ip", "dst_ip")
    everywhere: dict[str, Any] = dict.fromkeys(fields, text)
    everywhere |= {"alpn": (text,), "tls_versions": (text,), "close_reason": text}
    writer_of(store).add([flow(**everywhere)])
    writer_of(store).add([flow(**everywhere)])
    (row,) = rows(store, schema.subject)
    kept = schema.storable(text)
    assert row["name"] == row["rule"] == row["note"] == row["src_ip"] == kept
    assert schema.unpacked_texts(row["alpn"]) == (kept,)
    assert [row["count"] for row in rows(store, schema.hourly)] == [2]
    assert [row["name"] for row in rows(store, schema.seen)] == [kept]


# What happens once only


def test_new_names_are_told_once_by_whoever_sees_them_first(store: Store) -> None:
    one, other = writer_of(store), Writer(store, gateway="gw-2", bounds=Bounds())
    names = ["b.example", "a.example", "b.example"]
    assert one.add([flow(name=name) for name in names]).new_names == ("b.example", "a.example")
    assert one.add([flow(name="a.example")]).new_names == ()
    assert other.add([flow(name="a.example"), flow(name="c.example")]).new_names == ("c.example",)
    assert one.add([flow(name="c.example")]).new_names == ()


def test_first_and_last_seen(store: Store) -> None:
    writer = writer_of(store)
    for at in (START, START + 7200, START - 500, START + 7201):
        writer.add([flow(time=at)])
    writer_of(store).add([flow(time=START + 60)])
    (row,) = rows(store, schema.seen)
    assert row == {"name": "evil.example", "first_at": START - 500, "last_at": START + 7200}


class LostError(Exception):
    """What ends a transaction in the middle."""


def test_a_batch_that_failed_can_be_given_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_of(store, subjects_per_source_hour=30)
    records = [flow(name=f"n{number}.example") for number in range(20)]
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise LostError

        patch.setattr(writer._names, "note", fail)
        for _ in range(3):
            with pytest.raises(LostError):
                writer.add(records)
        for table in schema.metadata.sorted_tables:
            if table is not schema.meta:
                assert rows(store, table) == []
    added = writer.add(records)
    assert added == (20, 0, tuple(record.name for record in records))
    assert {row["count"] for row in rows(store, schema.hourly)} == {1}


def test_a_store_that_does_not_take_it_says_so(store: Store) -> None:
    writer = writer_of(store)
    with store.begin() as connection:
        schema.seen.drop(connection)
    with pytest.raises(StoreError):
        writer.add([flow()])
    assert rows(store, schema.record) == []


def test_an_empty_batch_is_nothing(store: Store) -> None:
    assert writer_of(store).add([]) == (0, 0, ())


# A hostile client


def test_many_names_of_one_source_become_one_subject(store: Store) -> None:
    writer = writer_of(store, subjects_per_source_hour=10)
    flood = [flow(name=f"{number:x}.exfil.example", bytes_up=1) for number in range(300)]
    other = flow(src_ip="10.240.0.5", name="quiet.example")
    results = [writer.add([*flood[start : start + 100], other]) for start in (0, 100, 200)]
    assert [added.overflowed for added in results] == [90, 100, 100]
    assert [len(added.new_names) for added in results] == [11, 0, 0]
    subjects = rows(store, schema.subject)
    assert len(subjects) == 12
    (overflow,) = [row for row in subjects if row["is_overflow"]]
    assert overflow["name"] is None
    assert overflow["src_ip"] == "10.240.0.4"
    assert (overflow["action"], overflow["reason"]) == ("deny", "default_deny")
    by_name = counts(store, schema.hourly)
    assert by_name[int(START), None] == 290
    assert by_name[int(START), "quiet.example"] == 3
    assert by_name.total() == 303
    assert sum(row["bytes_up"] for row in rows(store, schema.hourly)) == 300
    assert len(rows(store, schema.record)) == 10 + 3 + 3, "one for each batch beyond"


def test_what_is_known_is_counted_as_itself_beyond_the_budget(store: Store) -> None:
    writer = writer_of(store, subjects_per_source_hour=5)
    writer.add([flow(name=f"n{number}.example") for number in range(50)])
    assert writer.add([flow(name="n3.example")]).overflowed == 0
    assert writer.add([flow(name="n33.example")]).overflowed == 1
    assert writer.add([flow(name="n33.example", time=START + 3600)]).overflowed == 0


def test_an_overflow_is_never_taken_for_a_flow_without_a_name(store: Store) -> None:
    bare = flow(name=None, name_source=NameSource.NONE, dst_ip=None, dst_port=0, note="", alpn=())
    writer = writer_of(store, subjects_per_source_hour=1)
    writer.add([bare, flow(name="a.example"), flow(name="b.example")])
    assert [(row["is_overflow"], row["name"]) for row in rows(store, schema.subject)] == [
        (False, None),
        (True, None),
    ]


def test_many_sources_become_their_networks(store: Store) -> None:
    """Addresses are cheap, too: of IPv6 a client may have 2^64."""
    writer = writer_of(store, subjects_per_source_hour=5, subjects_per_hour=10)
    sources = [f"2001:db8::{number:x}" for number in range(40)]
    sources += [f"10.1.{number}.1" for number in range(40)]
    added = writer.add([flow(src_ip=source, name=f"n{source}") for source in sources])
    assert added.overflowed == 70
    overflows = {row["src_ip"] for row in rows(store, schema.subject) if row["is_overflow"]}
    assert len(overflows) == 10 + 2
    assert {"2001:db8::", "10.1.0.0"} <= overflows
    assert counts(store, schema.hourly).total() == 80
    again = writer.add([flow(src_ip=source, name=f"m{source}") for source in sources])
    assert again.overflowed == 80
    assert len(rows(store, schema.subject)) == 22


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_however_hostile_counts_are_exact_and_subjects_bounded(
    tmp_path: Path, data: st.DataObject
) -> None:
    flows = st.builds(
        flow,
        time=st.sampled_from([START, START + 1, START + 3600]),
        src_ip=st.sampled_from(["10.0.0.1", "10.0.0.2", "nonsense", "", "fd00::1"]),
        name=st.none() | st.sampled_from([f"n{number}" for number in range(12)]),
        dst_port=st.integers(0, 3),
        count=st.integers(0, 3),
    )
    batches = data.draw(st.lists(st.lists(flows, max_size=20), max_size=4))
    with open_store(str(tmp_path / f"{uuid4()}.db")) as store:
        writer = writer_of(
            store, subjects_per_source_hour=2, subjects_per_hour=4, records_per_source_hour=3
        )
        for batch in batches:
            writer.add(batch)
        total = sum(record.count for batch in batches for record in batch)
        assert counts(store, schema.hourly).total() == total
        assert counts(store, schema.daily).total() == total
        assert sum(row["count"] for row in rows(store, schema.record)) == total
        own = [row for row in rows(store, schema.subject) if not row["is_overflow"]]
        assert len(own) <= 2 * 4


# Notes


def test_reloads_are_kept(store: Store) -> None:
    writer = writer_of(store)
    report = r'{"a": "\u0000"}'
    for at, outcome in ((2.0, "refused"), (1.0, "applied")):
        writer.note_reload(at=at, outcome=outcome, digest="d", previous="p", report=report)
    kept = rows(store, schema.reload)
    assert [(row["at"], row["outcome"], row["gateway"]) for row in kept] == [
        (2.0, "refused", "gw-1"),
        (1.0, "applied", "gw-1"),
    ]
    assert kept[0]["report"] == report


def test_rule_hits_add_up_by_day(store: Store) -> None:
    writer = writer_of(store)
    writer.note_rule_hits({"ntp": 3, "idle": 0}, at=START)
    writer.note_rule_hits({"ntp": 4}, at=START + 3600)
    writer.note_rule_hits({"ntp": 5}, at=START + schema.DAY_S)
    writer.note_rule_hits({}, at=START)
    Writer(store, gateway="gw-2", bounds=Bounds()).note_rule_hits({"ntp": 1}, at=START)
    kept = {
        (row["bucket"], row["gateway"], row["rule"]): row["packets"]
        for row in rows(store, schema.rule_hits)
    }
    day = int(START)
    assert kept == {
        (day, "gw-1", "ntp"): 7,
        (day, "gw-2", "ntp"): 1,
        (day + schema.DAY_S, "gw-1", "ntp"): 5,
    }


def test_what_is_recorded_from_when_on(store: Store) -> None:
    writer = writer_of(store)
    for since, allows in ((1.0, "all"), (2.0, "1/100"), (1.0, "none")):
        writer.note_recording(since=since, allows=allows)
    assert [(row["since"], row["allows"]) for row in rows(store, schema.recording)] == [
        (1.0, "none"),
        (2.0, "1/100"),
    ]


def test_progress_is_stored_with_the_records(store: Store) -> None:
    writer = writer_of(store)
    head = b"h" * 16
    writer.add([flow()], progress=Progress(head, 10, START))
    writer.add([], progress=Progress(head, 20, START + 1))
    assert rows(store, schema.imported) == [{"head": head, "offset": 20, "at": START + 1}]
    with store.connect() as connection:
        assert connection.execute(select(func.count()).select_from(schema.record)).scalar() == 1

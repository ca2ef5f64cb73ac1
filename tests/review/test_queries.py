"""Answers of the store, on both engines, held to what the records themselves say."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

import pytest
from sqlalchemy import update

from egressproxy.errors import StoreError
from egressproxy.observe.record import FlowRecord, Plane
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review import queries, schema
from egressproxy.review.bounds import Bounds
from egressproxy.review.model import Filter, Group
from egressproxy.review.store import Store, open_store
from egressproxy.review.writer import Writer
from tests.review.filled import END, HOUR_S, Known, counted, fill, known_records, meant
from tests.review.records import INTRUDER, START

if TYPE_CHECKING:
    from collections.abc import Iterator

KNOWN: Final = known_records(2500)
BY: Final = [by for by in Group if by not in (Group.CLASS, Group.REQUIREMENT)]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    if request.param == "sqlite":
        place = str(tmp_path_factory.mktemp("queries") / "review.db")
    else:
        place = request.getfixturevalue("postgresql_server").url()
    with open_store(place) as store:
        fill(store, KNOWN)
        yield store


FILTERS: dict[str, Filter] = {
    "denies": Filter(),
    "allows": Filter(is_denied=False),
    "everything": Filter(is_denied=None),
    "an hour to the second": Filter(since=START + 1234.5, until=START + 4567.5),
    "two hours to the second": Filter(since=START + 99.9, until=START + 99.9 + 7200),
    "whole hours": Filter(since=START + 5000, until=START + 20_000),
    "days with ends sticking out": Filter(since=START + 70_000, until=END - 50_000),
    "a whole day": Filter(since=START + 86_400, until=START + 2 * 86_400),
    "since": Filter(since=START + 100_000),
    "until": Filter(until=START + 100_000),
    "before everything": Filter(until=START - 10_000),
    "an address": Filter(sources=(ip_network(INTRUDER),)),
    "a range": Filter(sources=(ip_network("10.244.0.0/20"),), is_denied=None),
    "an IPv6 range has no IPv4": Filter(sources=(ip_network("::/1"),)),
    "two ranges": Filter(sources=(ip_network("10.240.0.4"), ip_network("10.244.3.0/24"))),
    "a group": Filter(source_groups=("lab",)),
    "nobody's group": Filter(source_groups=("other",)),
    "a range or a group": Filter(sources=(ip_network("10.240.0.4"),), source_groups=("other",)),
    "a name": Filter(names=("mcr.mircosoft.com",)),
    "names and patterns": Filter(names=("*.t.exfil.example", "npm.example", "md-*")),
    "an underscore is no wildcard": Filter(names=("md_*",)),
    "a percent sign is no wildcard": Filter(names=("%example",)),
    "an address for a name": Filter(names=("203.0.113.1", "198.51.100.*")),
    "reasons": Filter(reasons=("no_sni", "expired_rule")),
    "a rule": Filter(rules=("legacy",)),
    "rules": Filter(rules=("aks/*",), is_denied=False),
    "ports": Filter(ports=(123, 80), is_denied=None),
    "a plane": Filter(planes=("network",)),
    "a gateway": Filter(gateways=("hub-2",)),
    "all at once": Filter(
        since=START + 3600,
        sources=(ip_network("10.244.0.0/16"),),
        names=("*.example",),
        reasons=("default_deny",),
        ports=(443,),
        planes=("transparent",),
        gateways=("hub-1",),
    ),
}


@pytest.mark.parametrize("where", FILTERS.values(), ids=FILTERS)
def test_counts_are_those_of_the_records(filled: Store, where: Filter) -> None:
    expected = list(meant(KNOWN, where))
    for by in BY:
        wanted = counted(expected, by)
        top = queries.top(filled, where, by, limit=0)
        assert {each.key: each.count for each in top} == dict(wanted)
        assert [each.count for each in top] == sorted((e.count for e in top), reverse=True)
        assert all(each.groups == len(wanted) for each in top)
    totals = queries.totals(filled, where)
    assert totals.flows == sum(record.count for _, record in expected)
    assert totals.targets == len(counted(expected, Group.NAME))
    assert totals.sources == len(counted(expected, Group.SOURCE))
    assert totals.gateways == len(counted(expected, Group.GATEWAY))
    times = [record.time for _, record in expected]
    assert (totals.first_at, totals.last_at) == (min(times, default=None), max(times, default=None))


@pytest.mark.parametrize("where", FILTERS.values(), ids=FILTERS)
def test_subjects_are_the_same_flows(filled: Store, where: Filter) -> None:
    expected = list(meant(KNOWN, where))
    found = queries.subjects(filled, where)
    assert sum(each.count for each in found) == sum(record.count for _, record in expected)
    assert sum(each.bytes_down for each in found) == sum(r.bytes_down for _, r in expected)
    assert [each.count for each in found] == sorted((e.count for e in found), reverse=True)
    assert {each.subject.target for each in found} == counted(expected, Group.NAME).keys()
    few = queries.subjects(filled, where, limit=3)
    assert [each.subject.id for each in few] == [each.subject.id for each in found[:3]]


def test_a_subject_is_what_was_logged(filled: Store) -> None:
    (found,) = queries.subjects(filled, Filter(names=("legacy.partner.example",)), limit=1)
    first = next(r for _, r in KNOWN if r.name == "legacy.partner.example")
    subject = found.subject
    assert (subject.action, subject.reason, subject.plane) == (
        Action.DENY,
        Reason.EXPIRED_RULE,
        Plane.TRANSPARENT,
    )
    assert (subject.rule, subject.protocol, subject.dst_port) == ("legacy", "tls", 443)
    assert (subject.alpn, subject.source_group, subject.is_denied) == (first.alpn, "lab", True)


def test_subjects_of_groups(filled: Store) -> None:
    for by in BY:
        keys = [each.key for each in queries.top(filled, Filter(), by, limit=2)]
        found = queries.subjects(filled, Filter(), by=by, keys=keys)
        wanted = counted(meant(KNOWN, Filter()), by)
        assert sum(each.count for each in found) == sum(wanted[key] for key in keys)


def test_the_latest_first(filled: Store) -> None:
    top = queries.top(filled, Filter(), Group.NAME, limit=5, by_time=True)
    times = [each.last_at for each in top]
    assert times == sorted(times, reverse=True)
    assert times[0] == max(record.time for _, record in meant(KNOWN, Filter()))


def test_names_are_without_addresses(filled: Store) -> None:
    wanted = counted((k for k in meant(KNOWN, Filter()) if k[1].name), Group.NAME)
    found = queries.names(filled, Filter())  # of equals the first by the database's own order
    assert set(found) == set(wanted)
    assert [wanted[name] for name in found] == sorted(wanted.values(), reverse=True)
    assert queries.names(filled, Filter(), limit=2) == found[:2]


STEPS: dict[str, tuple[Filter, int]] = {
    "days": (Filter(), 86_400),
    "hours": (Filter(since=START, until=END), 3600),
    "six hours": (Filter(is_denied=None), 6 * 3600),
    "minutes": (Filter(since=START + 1800, until=START + 1800 + 3600), 60),
    "five minutes of everything": (
        Filter(since=START + 10.5, until=START + 7000, is_denied=None),
        300,
    ),
    "nothing": (Filter(names=("no.example",)), 3600),
}


@pytest.mark.parametrize(("where", "step_s"), STEPS.values(), ids=STEPS)
def test_series(filled: Store, where: Filter, step_s: int) -> None:
    points = queries.series(filled, where, step_s=step_s)
    wanted: dict[float, int] = {}
    for _, record in meant(KNOWN, where):
        at = record.time // step_s * step_s
        wanted[at] = wanted.get(at, 0) + record.count
    assert {point.at: point.count for point in points} == wanted
    assert [point.at for point in points] == sorted(wanted)
    for point in points:
        assert sum(count for _, count in point.parts) == point.count
        assert {word for word, _ in point.parts} <= {str(reason) for reason in Reason}


def test_series_by_another_part(filled: Store) -> None:
    points = queries.series(filled, Filter(), step_s=86_400, part=lambda one: one.protocol)
    assert {word for point in points for word, _ in point.parts} == {"tls", "udp"}


def test_a_part_of_an_hour_without_single_records_is_an_hour(filled: Store) -> None:
    points = queries.series(filled, Filter(since=START, until=START + 5 * HOUR_S), step_s=60)
    assert {point.at % HOUR_S for point in points} == {0.0}
    assert len(points) == 5


# Single records


@pytest.mark.parametrize("where", FILTERS.values(), ids=FILTERS)
def test_pages_of_records_are_all_of_them_once(filled: Store, where: Filter) -> None:
    exact = replace(where, since=None, until=None)
    wanted = sorted(record.flow_id for _, record in meant(KNOWN, exact))
    pages: list[int] = []
    flows: list[str] = []
    before: int | None = None
    while page := queries.records(filled, exact, limit=500, before_id=before):
        before = page[-1].id
        pages += [record.id for record in page]
        flows += [record.flow_id for record in page]
    assert pages == sorted(pages, reverse=True)
    assert sorted(flows) == wanted


def test_records_between_two_moments_are_exact(filled: Store) -> None:
    where = Filter(since=START + 1234.5, until=START + 40_000.25)
    found = queries.records(filled, where, limit=10_000)
    assert sorted(record.at for record in found) == [
        record.time
        for _, record in KNOWN
        if 1234.5 <= record.time - START < 40_000.25
        and (record.action == "deny" or record.would_deny)
    ]


def test_a_tail_gives_what_came_oldest_first(filled: Store) -> None:
    newest = queries.newest_id(filled)
    assert queries.records(filled, Filter(), limit=10, after_id=newest) == []
    rest = queries.records(filled, Filter(is_denied=None), limit=10_000, after_id=newest - 5)
    assert [record.id for record in rest] == list(range(newest - 4, newest + 1))


def test_a_record_is_what_was_logged(filled: Store) -> None:
    _, logged = next(k for k in KNOWN if k[1].rule == "partner")
    found = queries.records(filled, Filter(rules=("partner",), is_denied=False), limit=10_000)
    record = next(one for one in found if one.flow_id == logged.flow_id)
    for name in ("src_port", "dst_ip", "dialled_ip", "tls_versions", "bytes_up", "bytes_down"):
        assert getattr(record, name) == getattr(logged, name)
    assert (record.at, record.duration_s, record.count) == (logged.time, logged.duration_s, 1)


# Odd stores


DENY: Final = FlowRecord(
    START, "f", 1, Action.DENY, Reason.DEFAULT_DENY, Plane.TRANSPARENT, "tls", "10.1.0.4", 443
)


def _write(store: Store, *records: FlowRecord, bounds: Bounds | None = None) -> None:
    Writer(store, gateway="gw", bounds=bounds or Bounds()).add(records)


def test_an_empty_store(store: Store) -> None:
    for where in (Filter(), Filter(since=START, until=START + 60)):
        assert queries.subjects(store, where) == []
        assert queries.top(store, where, Group.NAME, limit=3) == []
        assert queries.series(store, where, step_s=60) == []
        assert queries.records(store, where, limit=3) == []
        assert queries.totals(store, where) == queries.Totals(
            flows=0, subjects=0, targets=0, sources=0, gateways=0, first_at=None, last_at=None
        )
    assert queries.newest_id(store) == 0


HOSTILE: dict[str, str] = {
    "markup": "<script>alert(1)</script>",
    "quotes": "a'b\"c`d",
    "a wildcard of LIKE": "100%_\\.example",
    "bidi": "\u202egnp.example",
    "control characters": "a\x1b[31m\r\n.example",
    "beyond the BMP": "\U0001f600.example",
    "a formula": "=1+1",
    "the longest": "x" * 256,
    "empty": "",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_hostile_names_are_found_as_they_are(store: Store, name: str) -> None:
    _write(store, DENY._replace(name=name), DENY._replace(name="other.example", count=3))
    key = name or queries.NO_TARGET
    assert {e.key: e.count for e in queries.top(store, Filter(), Group.NAME, limit=9)} == {
        "other.example": 3,
        key: 1,
    }
    (found,) = queries.subjects(store, Filter(), by=Group.NAME, keys=[key])
    assert found.subject.name == name
    assert [r.subject.name for r in queries.records(store, Filter(names=(name,)), limit=5)] == [
        name
    ]


def test_what_is_beyond_a_budget_has_a_key_of_its_own(store: Store) -> None:
    many = [DENY._replace(name=f"n{number}.example") for number in range(50)]
    _write(store, *many, bounds=Bounds(subjects_per_source_hour=10))
    top = {each.key: each.count for each in queries.top(store, Filter(), Group.NAME, limit=0)}
    assert top[queries.OVERFLOW] == 40
    assert len(top) == 11
    (found,) = queries.subjects(store, Filter(), keys=[queries.OVERFLOW])
    assert found.subject.is_overflow
    assert found.subject.name is None


def test_a_short_span_counts_hours_where_single_records_are_gone(store: Store) -> None:
    """The oldest records are deleted first, counts stay."""
    _write(store, *(DENY._replace(time=START + minute * 60) for minute in range(300)))
    where = Filter(since=START + 100 * 60, until=START + 130 * 60)
    assert queries.totals(store, where).flows == 30
    with store.begin() as connection:
        gone = schema.record.c.at < START + 200 * 60
        connection.execute(schema.record.delete().where(gone))
    assert queries.totals(store, where).flows == 120  # the two hours that it touches
    late = Filter(since=START + 210 * 60, until=START + 220 * 60)
    assert queries.totals(store, late).flows == 10


def test_a_flow_that_was_counted_before_is_not_in_a_later_span(store: Store) -> None:
    """What audit let pass has a record at its beginning, and one at its end that counts nothing."""
    audited = DENY._replace(
        action=Action.ALLOW, would_deny=True, name="a.example", dialled_ip="192.0.2.1"
    )
    _write(
        store,
        audited._replace(close_reason="open"),
        audited._replace(time=START + 3 * HOUR_S, close_reason="client_closed"),
    )
    assert queries.totals(store, Filter()).flows == 1
    for span in (600, 3 * HOUR_S):
        where = Filter(since=START + 3 * HOUR_S, until=START + 3 * HOUR_S + span)
        assert queries.subjects(store, where) == []
        assert queries.top(store, where, Group.NAME, limit=5) == []


def test_a_word_of_a_younger_version_is_an_error_with_a_hint(store: Store) -> None:
    _write(store, DENY)
    with store.begin() as connection:
        connection.execute(update(schema.subject).values(reason="tomorrow"))
    with pytest.raises(StoreError, match=r"'tomorrow'.*younger egressproxy wrote it"):
        queries.subjects(store, Filter())


def test_known_records_have_all_that_is_asked_for() -> None:
    """The oracle is no empty list."""
    counts: dict[str, list[Known]] = {
        name: list(meant(KNOWN, where)) for name, where in FILTERS.items()
    }
    empty = {name for name, found in counts.items() if not found}
    assert empty == {
        "before everything",
        "an IPv6 range has no IPv4",
        "nobody's group",
        "an underscore is no wildcard",
        "a percent sign is no wildcard",
    }

"""Lines: the same by either way, sorted, classified, folded, with their totals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from egressproxy.observe.record import FlowRecord, Plane
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review import queries, report
from egressproxy.review.bounds import Bounds
from egressproxy.review.model import Class, Filter, Finding, Group
from egressproxy.review.store import Store, open_store
from egressproxy.review.writer import Writer
from tests.review.filled import counted, fill, known_records, meant
from tests.review.records import START

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.review.model import ReviewLine, Subject

KNOWN: Final = known_records(1500)
BY: Final = [by for by in Group if by not in (Group.CLASS, Group.REQUIREMENT)]
DENY: Final = FlowRecord(
    START, "f", 1, Action.DENY, Reason.DEFAULT_DENY, Plane.TRANSPARENT, "tls", "10.1.0.4", 443
)


class Judge:
    """Classes by what names begin with."""

    kinds: Final = {
        "sus": Class.SUSPICIOUS,
        "miss": Class.MISSING_REQUIREMENT,
        "near": Class.NEAR_MISS,
        "noise": Class.HARMLESS,
    }

    def finding(self, subject: Subject) -> Finding:
        name = subject.name or ""
        kind = next((k for head, k in self.kinds.items() if name.startswith(head)), Class.UNKNOWN)
        requirement = "aks/lacking" if kind is Class.MISSING_REQUIREMENT else None
        return Finding(kind=kind, why=f"why {kind}", requirement=requirement)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(str(tmp_path_factory.mktemp("report") / "review.db")) as store:
        fill(store, KNOWN)
        yield store


@pytest.fixture
def mixed(store: Store) -> Store:
    """Two lines of most classes, one of an allow, one without any name."""
    names = {"sus.example": 1, "miss.example": 20, "near.example": 3, "what.example": 300}
    names |= {"noise.example": 5000, "near.two.example": 40}
    records = [DENY._replace(name=name, count=count) for name, count in names.items()]
    records += [
        DENY._replace(name="what.example", src_ip="10.1.0.5", dst_port=8443, time=START + 60),
        DENY._replace(src_ip="10.1.0.6", reason=Reason.HELLO_TIMEOUT, dst_port=0),
        DENY._replace(name="a.example", action=Action.ALLOW, rule="aks/core#mcr", count=7),
    ]
    Writer(store, gateway="gw", bounds=Bounds()).add(records)
    return store


def lines_of(*asked: Any, **how: Any) -> list[ReviewLine]:
    return list(report.report(*asked, **how).lines)


def keys(lines: list[ReviewLine] | tuple[ReviewLine, ...]) -> list[str]:
    return [line.key for line in lines]


WHERE: dict[str, Filter] = {
    "denies": Filter(),
    "allows": Filter(is_denied=False),
    "of some hours": Filter(since=START + 5000, until=START + 90_000, is_denied=None),
    "of some names": Filter(names=("*.example",)),
}


@pytest.mark.parametrize("where", WHERE.values(), ids=WHERE)
@pytest.mark.parametrize("by", BY)
def test_both_ways_give_the_same_lines(filled: Store, where: Filter, by: Group) -> None:
    """By the database, and by reading every subject."""
    top = lines_of(filled, where, by, limit=0)
    read = sorted(
        lines_of(filled, where, by, limit=0, order="class"),
        key=lambda line: (-line.count, line.key),
    )
    assert top == read
    wanted = counted(meant(KNOWN, where), by)
    assert {line.key: line.count for line in top} == dict(wanted)


@pytest.mark.parametrize("order", ["count", "last", "class"])
def test_limit_and_what_is_left_out(filled: Store, order: report.Order) -> None:
    whole = report.report(filled, Filter(), Group.NAME, limit=0, order=order)
    assert whole.more == 0
    some = report.report(filled, Filter(), Group.NAME, limit=7, order=order)
    assert some.lines == whole.lines[:7]
    assert some.more == len(whole.lines) - 7
    assert some.totals == whole.totals == queries.totals(filled, Filter())


def test_the_most_urgent_first(mixed: Store) -> None:
    found = report.report(mixed, Filter(), Group.NAME, limit=0, classifier=Judge(), order="class")
    assert keys(found.lines) == [
        "sus.example",
        "miss.example",
        "near.two.example",
        "near.example",
        "what.example",
        queries.NO_TARGET,
        "noise.example",
    ]
    assert found.classes == (
        report.ClassCount(Class.SUSPICIOUS, 1, 1),
        report.ClassCount(Class.MISSING_REQUIREMENT, 1, 20),
        report.ClassCount(Class.NEAR_MISS, 2, 43),
        report.ClassCount(Class.UNKNOWN, 2, 302),
        report.ClassCount(Class.HARMLESS, 1, 5000),
    )


def test_orders(mixed: Store) -> None:
    assert keys(lines_of(mixed, Filter(), Group.NAME, limit=2)) == [
        "noise.example",
        "what.example",
    ]
    assert keys(lines_of(mixed, Filter(), Group.NAME, limit=1, order="last")) == ["what.example"]


def test_a_line_says_who_and_what(mixed: Store) -> None:
    (line,) = lines_of(mixed, Filter(names=("what.*",)), Group.NAME, limit=0)
    assert (line.count, line.sources, line.target_count) == (301, 2, 1)
    assert line.source_sample == ("10.1.0.4", "10.1.0.5")
    assert line.ports == ("tls:443", "tls:8443")
    assert (line.first_at, line.last_at) == (START, START + 60)
    assert line.reasons == ("default_deny",)
    assert line.gateways == ("gw",)
    assert sum(each.count for each in line.subjects) == 301


def test_classes_choose_lines_and_totals(mixed: Store) -> None:
    where = Filter(classes=(Class.NEAR_MISS, Class.SUSPICIOUS))
    found = report.report(mixed, where, Group.NAME, limit=0, classifier=Judge())
    assert keys(found.lines) == ["near.two.example", "near.example", "sus.example"]
    assert (found.totals.flows, found.totals.targets) == (44, 3)
    none = report.report(mixed, where, Group.NAME, limit=0)
    assert (none.lines, none.totals.flows) == ((), 0)
    everything = lines_of(mixed, Filter(classes=(Class.UNKNOWN,)), Group.NAME, limit=0)
    assert len(everything) == 7


def test_by_class_and_by_requirement(mixed: Store) -> None:
    by_class = lines_of(mixed, Filter(), Group.CLASS, limit=0, classifier=Judge())
    assert {line.key: line.count for line in by_class} == {
        "harmless": 5000,
        "unknown": 302,
        "near miss": 43,
        "missing requirement": 20,
        "suspicious": 1,
    }
    where = Filter(is_denied=None)
    required = lines_of(mixed, where, Group.REQUIREMENT, limit=0, classifier=Judge())
    assert {line.key: line.count for line in required} == {
        report.NO_REQUIREMENT: 5346,
        "aks/lacking": 20,
        "aks/core": 7,
    }
    allowed = lines_of(mixed, where, Group.CLASS, limit=0)
    assert {line.key for line in allowed} == {"unknown", report.NO_CLASS}


def test_an_allow_has_no_finding(mixed: Store) -> None:
    (line,) = lines_of(mixed, Filter(is_denied=False), Group.NAME, limit=0, classifier=Judge())
    assert (line.key, line.finding) == ("a.example", None)


def test_a_source_has_the_most_urgent_finding_of_what_it_did(mixed: Store) -> None:
    lines = lines_of(mixed, Filter(), Group.SOURCE, limit=0, classifier=Judge(), order="class")
    assert [(line.key, line.finding and line.finding.kind) for line in lines] == [
        ("10.1.0.4", Class.SUSPICIOUS),
        ("10.1.0.5", Class.UNKNOWN),
        ("10.1.0.6", Class.UNKNOWN),
    ]


def test_folded_lines_are_a_pattern_that_a_filter_takes(store: Store) -> None:
    names = [f"{head}{n}.made.example" for head in ("sus", "x") for n in range(5)]
    Writer(store, gateway="gw", bounds=Bounds()).add([DENY._replace(name=n) for n in names])
    found = report.report(
        store,
        Filter(),
        Group.NAME,
        limit=0,
        classifier=Judge(),
        order="class",
        is_folded=True,
    )
    assert [(line.key, line.count, line.target_count) for line in found.lines] == [
        ("*.made.example", 5, 5),
        ("*.made.example", 5, 5),
    ]
    assert [line.finding and line.finding.kind for line in found.lines] == [
        Class.SUSPICIOUS,
        Class.UNKNOWN,
    ]
    assert [each.lines for each in found.classes] == [5, 5]
    below = lines_of(store, Filter(names=(found.lines[0].key,)), Group.NAME, limit=0)
    assert keys(below) == sorted(names)


def test_no_subject_is_left_out_silently(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    Writer(store, gateway="gw", bounds=Bounds()).add(
        [DENY._replace(name=f"n{n}.example", count=n + 1) for n in range(30)]
    )
    monkeypatch.setattr(queries, "MAX_SUBJECTS", 10)
    orders: tuple[report.Order, ...] = ("count", "class")
    for order in orders:
        found = report.report(store, Filter(), Group.NAME, limit=0, order=order)
        assert found.is_cut
        assert found.totals.flows == 465


def test_nothing(store: Store) -> None:
    for by in Group:
        found = report.report(store, Filter(), by, limit=5)
        assert (found.lines, found.more, found.totals.flows) == ((), 0, 0)

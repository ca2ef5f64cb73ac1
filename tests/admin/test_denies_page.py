"""The question in the URL, and where every link of the list leads to."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.admin.denies_page import PAGE_LINES, denies_view, line_link, wanted_lines
from egressproxy.admin.question import Question, read_question
from egressproxy.review.model import Class, Finding, Group, ReviewLine
from egressproxy.review.queries import NO_RULE, NO_TARGET, OVERFLOW, Totals
from egressproxy.review.report import Report

NOW = 1_790_000_000.0


def asked(**query: str) -> Question:
    return read_question({key.rstrip("_"): [text] for key, text in query.items()}, NOW)


def again(link: str) -> Question:
    """The question that a link asks."""
    return read_question(parse_qs(urlsplit(link).query), NOW)


def a_line(key: str, count: int = 1) -> ReviewLine:
    return ReviewLine(key=key, count=count, first_at=NOW - 60, last_at=NOW, sources=1)


def report_of(lines: list[ReviewLine]) -> Report:
    totals = Totals(
        flows=sum(line.count for line in lines),
        subjects=len(lines),
        targets=len(lines),
        sources=1,
        gateways=1,
        first_at=None,
        last_at=None,
    )
    return Report(lines=tuple(lines), more=0, totals=totals)


def test_pages_lead_to_each_other() -> None:
    first = asked()
    lines = [a_line(f"n{number}.test", 200 - number) for number in range(wanted_lines(first))]
    view = denies_view(first, report_of(lines), {})
    assert (len(view.lines), view.before, again(view.after).page) == (PAGE_LINES, "", 2)
    second = denies_view(again(view.after), report_of(lines), {})
    assert [shown.line.key for shown in second.lines] == [f"n{PAGE_LINES}.test"]
    assert (again(second.before).page, second.after) == (1, "")


def test_bars_are_shares_of_the_largest_count() -> None:
    view = denies_view(
        asked(), report_of([a_line("a", 1000), a_line("b", 500), a_line("c", 1)]), {}
    )
    assert [shown.share for shown in view.lines] == [100, 50, 1]


LEADS = {
    Group.SOURCE: ("10.1.2.3", "sources"),
    Group.REASON: ("default_deny", "reasons"),
    Group.RULE: ("rules/no-telemetry", "rules"),
    Group.PORT: ("tls:8443", "ports"),
    Group.CLASS: ("near miss", "classes"),
    Group.GATEWAY: ("nva-1", "gateways"),
}


@pytest.mark.parametrize(("by", "key", "field"), [(by, *lead) for by, lead in LEADS.items()])
def test_a_line_leads_to_the_list_narrowed_to_it(by: Group, key: str, field: str) -> None:
    question = asked(group_by=by, since="7d", page="2")
    narrowed = again(line_link(question, a_line(key)))
    assert list(map(str, getattr(narrowed.where, field))) in (
        [key],
        [f"{key}/32"],
        [key.removeprefix("tls:")],
    )
    assert (narrowed.by, narrowed.page) == (Group.NAME, 1)
    assert narrowed.where.since == question.where.since


def test_a_name_leads_to_its_own_page_over_the_same_time() -> None:
    link = line_link(asked(since="7d"), a_line('<b>&"x'))
    assert urlsplit(link).path == "/review/name"
    assert parse_qs(urlsplit(link).query) == {"name": ['<b>&"x'], "since": ["7d"]}


@pytest.mark.parametrize("key", ["", NO_TARGET, OVERFLOW, NO_RULE])
def test_a_line_that_stands_for_no_key_leads_nowhere(key: str) -> None:
    assert line_link(asked(), a_line(key)) == ""


def test_classes_are_switches_with_their_counts() -> None:
    view = denies_view(
        asked(class_="suspicious"), report_of([]), {Class.SUSPICIOUS: 3, Class.UNKNOWN: 9}
    )
    on, off = view.classes
    assert (on.text, on.is_here, on.count) == ("suspicious", True, 3)
    assert again(on.link).where.classes == ()
    assert (off.text, off.is_here) == ("unknown", False)
    assert again(off.link).where.classes == (Class.SUSPICIOUS, Class.UNKNOWN)


def test_each_condition_can_be_taken_away() -> None:
    view = denies_view(asked(reason="no_sni,rule", port="443"), report_of([]), {})
    assert [way.text for way in view.conditions] == ["reason no_sni", "reason rule", "port 443"]
    assert again(view.conditions[0].link).where.reasons == ("rule",)
    assert again(view.conditions[2].link).where.ports == ()


def test_the_span_asked_for_is_marked() -> None:
    assert [
        way.text for way in denies_view(asked(since="7d"), report_of([]), {}).spans if way.is_here
    ] == ["7 days"]
    ended = asked(since="7d", until="1d")
    assert not [way for way in denies_view(ended, report_of([]), {}).spans if way.is_here]


texts = st.lists(st.text(max_size=40), max_size=3)


@given(
    st.dictionaries(st.sampled_from(["since", "from", "name", "group_by", "page", "class"]), texts)
)
def test_any_query_is_a_question_with_links(query: dict[str, list[str]]) -> None:
    question = read_question(query, NOW)
    finding = Finding(kind=Class.UNKNOWN)
    line = ReviewLine(
        key="\x1b\u202e'\"<", count=1, first_at=0, last_at=1, sources=1, finding=finding
    )
    view = denies_view(question, report_of([line]), {Class.UNKNOWN: 1})
    assert all(way.link.startswith("/review/") for way in (*view.spans, *view.classes))

"""The question in the URL, and where every link of the list leads to."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.admin.denies_page import (
    MAX_PAGES,
    PAGE_LINES,
    Question,
    denies_view,
    line_link,
    read_question,
    wanted_lines,
)
from egressproxy.review.model import Class, Finding, Group, ReviewLine

NOW = 1_790_000_000.0


def asked(**query: str) -> Question:
    return read_question({key.rstrip("_"): [text] for key, text in query.items()}, NOW)


def again(link: str) -> Question:
    """The question that a link asks."""
    return read_question(parse_qs(urlsplit(link).query), NOW)


def a_line(key: str, count: int = 1) -> ReviewLine:
    return ReviewLine(key=key, count=count, first_at=NOW - 60, last_at=NOW, sources=1)


def test_without_a_query_it_asks_for_the_denies_of_a_day_by_name() -> None:
    question = asked()
    assert question.where.since == NOW - 86400
    assert (question.where.is_denied, question.by, question.order) == (True, Group.NAME, "count")
    assert question.link == "/review/denies"


QUERIES = {
    "a span": {"since": "7d"},
    "a source": {"from": "10.240.0.0/16"},
    "a name with a star": {"name": "*.azure.com"},
    "two conditions": {"reason": "no_sni", "port": "8443"},
    "a class": {"class_": "near-miss"},
    "a group, an order, a page": {"by": "source", "order": "last", "page": "3"},
    "allows": {"action": "allow"},
    "a rule with odd characters": {"rule": "rules/a&b=c #1"},
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_a_question_is_the_same_by_its_own_link(query: dict[str, str]) -> None:
    question = asked(**query)
    assert not question.problems
    once_more = again(question.link)
    assert once_more.where == question.where
    assert (once_more.by, once_more.order, once_more.page) == (
        question.by,
        question.order,
        question.page,
    )


BAD = {
    "a reason that is none": ({"reason": "nope"}, "reason"),
    "a time that is none": ({"since": "tomorrowish"}, "since"),
    "a range that is none": ({"from": "10.0.0.0/99"}, "from"),
    "a port that is none": ({"port": "99999"}, "port"),
}


@pytest.mark.parametrize(("query", "key"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_read_is_told_and_kept_in_the_form(query: dict[str, str], key: str) -> None:
    question = asked(**query)
    assert [problem.key for problem in question.problems] == [key]
    assert question.texts[key] == query[key]
    assert question.where.since == NOW - 86400


@pytest.mark.parametrize(
    ("text", "page"),
    [("2", 2), ("0", 1), ("-1", 1), ("x", 1), ("999", MAX_PAGES), ("1" * 50, 1), ("٣", 1)],
)
def test_the_page_is_bounded(text: str, page: int) -> None:
    assert asked(page=text).page == page


def test_pages_lead_to_each_other() -> None:
    first = asked()
    lines = [a_line(f"n{number}.test", 200 - number) for number in range(wanted_lines(first))]
    view = denies_view(first, lines, {})
    assert (len(view.lines), view.before, again(view.after).page) == (PAGE_LINES, "", 2)
    second = denies_view(again(view.after), lines, {})
    assert [shown.line.key for shown in second.lines] == [f"n{PAGE_LINES}.test"]
    assert (again(second.before).page, second.after) == (1, "")


def test_bars_are_shares_of_the_largest_count() -> None:
    view = denies_view(asked(), [a_line("a", 1000), a_line("b", 500), a_line("c", 1)], {})
    assert [shown.share for shown in view.lines] == [100, 50, 1]


LEADS = {
    Group.SOURCE: ("10.1.2.3", "sources"),
    Group.REASON: ("default_deny", "reasons"),
    Group.RULE: ("rules/no-telemetry", "rules"),
    Group.PORT: ("8443", "ports"),
    Group.CLASS: ("near miss", "classes"),
    Group.GATEWAY: ("nva-1", "gateways"),
}


@pytest.mark.parametrize(("by", "key", "field"), [(by, *lead) for by, lead in LEADS.items()])
def test_a_line_leads_to_the_list_narrowed_to_it(by: Group, key: str, field: str) -> None:
    question = asked(by=by, since="7d", page="2")
    narrowed = again(line_link(question, a_line(key)))
    assert list(map(str, getattr(narrowed.where, field))) in ([key], [f"{key}/32"])
    assert (narrowed.by, narrowed.page) == (Group.NAME, 1)
    assert narrowed.where.since == question.where.since


def test_a_name_leads_to_its_own_page_over_the_same_time() -> None:
    link = line_link(asked(since="7d"), a_line('<b>&"x'))
    assert urlsplit(link).path == "/review/name"
    assert parse_qs(urlsplit(link).query) == {"name": ['<b>&"x'], "since": ["7d"]}


def test_a_line_without_a_key_leads_nowhere() -> None:
    assert line_link(asked(by="rule"), a_line("")) == ""


def test_classes_are_switches_with_their_counts() -> None:
    view = denies_view(asked(class_="suspicious"), [], {Class.SUSPICIOUS: 3, Class.UNKNOWN: 9})
    on, off = view.classes
    assert (on.text, on.is_here, on.count) == ("suspicious", True, 3)
    assert again(on.link).where.classes == ()
    assert (off.text, off.is_here) == ("unknown", False)
    assert again(off.link).where.classes == (Class.SUSPICIOUS, Class.UNKNOWN)


def test_each_condition_can_be_taken_away() -> None:
    view = denies_view(asked(reason="no_sni,rule", port="443"), [], {})
    assert [way.text for way in view.conditions] == ["reason no_sni", "reason rule", "port 443"]
    assert again(view.conditions[0].link).where.reasons == ("rule",)
    assert again(view.conditions[2].link).where.ports == ()


def test_the_span_asked_for_is_marked() -> None:
    assert [way.text for way in denies_view(asked(since="7d"), [], {}).spans if way.is_here] == [
        "7 days"
    ]
    ended = asked(since="7d", until="1d")
    assert not [way for way in denies_view(ended, [], {}).spans if way.is_here]


texts = st.lists(st.text(max_size=40), max_size=3)


@given(st.dictionaries(st.sampled_from(["since", "from", "name", "by", "page", "class"]), texts))
def test_any_query_is_a_question_with_links(query: dict[str, list[str]]) -> None:
    question = read_question(query, NOW)
    finding = Finding(kind=Class.UNKNOWN)
    line = ReviewLine(
        key="\x1b\u202e'\"<", count=1, first_at=0, last_at=1, sources=1, finding=finding
    )
    view = denies_view(question, [line], {Class.UNKNOWN: 1})
    assert again(question.link).where.since is not None or question.where.until is not None
    assert all(way.link.startswith("/review/") for way in (*view.spans, *view.classes))

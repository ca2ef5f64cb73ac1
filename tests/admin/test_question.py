"""The question in the URL: read, told what is wrong with it, written again."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.admin.question import MAX_PAGES, Question, name_link, read_question
from egressproxy.review.model import Group
from tests.admin.chromium import a_deny, open_site

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

NOW = 1_790_000_000.0


def asked(**query: str) -> Question:
    return read_question({key.rstrip("_"): [text] for key, text in query.items()}, NOW)


def again(link: str) -> Question:
    """The question that a link asks."""
    return read_question(parse_qs(urlsplit(link).query), NOW)


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
    "a group, an order, a page": {"group_by": "source", "order": "last", "page": "3"},
    "allows": {"action": "allow"},
    "each name by itself": {"fold": "no"},
    "a rule with odd characters": {"rule": "rules/a&b=c #1"},
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_a_question_is_the_same_by_its_own_link(query: dict[str, str]) -> None:
    question = asked(**query)
    assert not question.problems
    once_more = again(question.link)
    assert once_more.where == question.where
    for field in ("by", "order", "page", "folds"):
        assert getattr(once_more, field) == getattr(question, field)


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


def test_a_name_has_a_page_over_the_same_time() -> None:
    link = name_link(asked(since="7d"), '<b>&"x')
    assert urlsplit(link).path == "/review/name"
    assert parse_qs(urlsplit(link).query) == {"name": ['<b>&"x'], "since": ["7d"]}
    assert name_link(asked(), "one.test") == "/review/name?name=one.test"


texts = st.lists(st.text(max_size=40), max_size=3)


@given(st.dictionaries(st.sampled_from(["since", "from", "name", "page", "class"]), texts))
def test_any_query_is_a_question_of_some_span(query: dict[str, list[str]]) -> None:
    question = read_question(query, NOW)
    assert question.where.since is not None or question.where.until is not None
    assert again(question.link).where.names == question.where.names


_VALUES = ("%00a", "%ff%fe", "%ED%A0%80", "%0d%0aX:1", "9" * 300, "'%20OR%201=1--", "0001-01-01")
HOSTILE_QUERIES = [
    f"{path}?{key}={value}"
    for path, keys in {
        "/review/denies": ("name", "since", "from", "rule", "page"),
        "/review/denies.csv": ("name", "until"),
        "/review/name": ("name", "since"),
        "/review/suggestions": ("pick", "since"),
        "/review/rules": ("search", "days"),
        "/review/flows": ("search", "kind"),
        "/review/catalog": ("search", "requirement"),
    }.items()
    for key in keys
    for value in _VALUES
]


def test_no_query_is_a_fault_of_ours(tmp_path: Path, tab: Page) -> None:
    """A few of each kind; the laws above have the rest."""
    with open_site(tmp_path, records=[a_deny("one.test")]) as site:  # whose rates are its own
        for path in HOSTILE_QUERIES[::2]:
            assert tab.request.get(site.url(path)).status in (200, 404), path

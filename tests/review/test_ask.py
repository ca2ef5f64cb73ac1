"""Filter texts: what people and URLs may say, both ways, and what is refused with a hint."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.observe.record import Plane
from egressproxy.policy.verdict import Reason
from egressproxy.review.ask import (
    KEYS,
    MAX_TEXT,
    MAX_TEXTS,
    class_text,
    describe,
    query_of,
    read_filter,
)
from egressproxy.review.model import Class, Filter

NOW = datetime(2026, 11, 22, 13, 45, 30, tzinfo=UTC).timestamp()


def at(text: str) -> float:
    return datetime.fromisoformat(text + "+00:00").timestamp()


MOMENTS: dict[str, tuple[str, str, float]] = {
    "minutes": ("since", "15m", NOW - 900),
    "hours": ("since", "24h", NOW - 86400),
    "days": ("since", "7d", NOW - 7 * 86400),
    "weeks": ("since", "2w", NOW - 14 * 86400),
    "seconds": ("since", "90s", NOW - 90),
    "longer than there was time": ("since", "999999w", 0.0),
    "today": ("since", "today", at("2026-11-22T00:00")),
    "yesterday": ("since", "yesterday", at("2026-11-21T00:00")),
    "a day begins at midnight": ("since", "2026-11-20", at("2026-11-20T00:00")),
    "a day as the end is over at midnight": ("until", "2026-11-20", at("2026-11-21T00:00")),
    "until yesterday has all of it": ("until", "yesterday", at("2026-11-22T00:00")),
    "a moment is UTC": ("since", "2026-11-20T08:30", at("2026-11-20T08:30")),
    "a moment with Z": ("since", "2026-11-20T08:30Z", at("2026-11-20T08:30")),
    "a moment elsewhere": ("since", "2026-11-20T08:30+09:00", at("2026-11-19T23:30")),
    "with a blank": ("since", "2026-11-20 08:30", at("2026-11-20T08:30")),
    "until now": ("until", "now", NOW),
    "before 1970": ("since", "1901-01-01", 0.0),
}


@pytest.mark.parametrize(("key", "text", "moment"), MOMENTS.values(), ids=MOMENTS)
def test_moments(key: str, text: str, moment: float) -> None:
    where, problems = read_filter({key: [text]}, NOW)
    assert (getattr(where, key), problems) == (moment, ())


READ: dict[str, tuple[dict[str, list[str]], Filter]] = {
    "nothing": ({}, Filter()),
    "blanks": ({"name": ["", " "], "since": [""], "reason": [","]}, Filter()),
    "keys that are not ours": ({"page": ["2"], "sort": ["count"]}, Filter()),
    "allows": ({"action": ["allow"]}, Filter(is_denied=False)),
    "both": ({"action": ["any"]}, Filter(is_denied=None)),
    "the last of two moments": ({"since": ["7d", "1h"]}, Filter(since=NOW - 3600)),
    "an address": ({"from": ["10.1.0.4"]}, Filter(sources=(ip_network("10.1.0.4"),))),
    "an address in brackets": ({"from": ["[fd00::4]"]}, Filter(sources=(ip_network("fd00::4"),))),
    "ranges and groups": (
        {"from": ["10.1.0.0/16,cluster-a", "fd00::/8"]},
        Filter(
            sources=(ip_network("10.1.0.0/16"), ip_network("fd00::/8")),
            source_groups=("cluster-a",),
        ),
    ),
    "a name in its normal form": (
        {"name": ["MCR.Microsoft.com.", "bücher.example"]},
        Filter(names=("mcr.microsoft.com", "xn--bcher-kva.example")),
    ),
    "patterns": ({"name": ["*.Azure.com, md-*"]}, Filter(names=("*.azure.com", "md-*"))),
    "an address for a name": (
        {"name": ["[2001:DB8::1]", "192.0.2.1"]},
        Filter(names=("2001:db8::1", "192.0.2.1")),
    ),
    "what a client gave for a name": ({"name": ["<b>A</b>"]}, Filter(names=("<b>A</b>",))),
    "each once": ({"port": ["443,443", "80"]}, Filter(ports=(443, 80))),
    "classes as written": (
        {"class": ["near-miss", "missing requirement", "Missing_Requirement"]},
        Filter(classes=(Class.NEAR_MISS, Class.MISSING_REQUIREMENT)),
    ),
    "a rule with a comma": (
        {"rule": ["a,b.yaml/rules/x", "aks/core*"]},
        Filter(rules=("a,b.yaml/rules/x", "aks/core*")),
    ),
    "words of ours": (
        {"reason": ["NO_SNI"], "plane": ["network"], "gateway": ["gw-1,gw-2"]},
        Filter(reasons=("no_sni",), planes=("network",), gateways=("gw-1", "gw-2")),
    ),
}


@pytest.mark.parametrize(("texts", "expected"), READ.values(), ids=READ)
def test_read(texts: dict[str, list[str]], expected: Filter) -> None:
    assert read_filter(texts, NOW) == (expected, ())


REFUSED: dict[str, tuple[str, str, str, str]] = {
    "no time": ("since", "soon", "'soon' is no time", "write 15m, 24h"),
    "no such day": ("since", "2026-02-30", "'2026-02-30' is no time", ""),
    "digits of others": ("since", "٣d", "is no time", ""),
    "the end of time": ("until", "9999-12-31", "is no time", ""),
    "not yet": ("since", "2027-01-01", "has not come yet", "times are UTC"),
    "host bits": ("from", "10.1.0.4/16", "is not an address range", "write 10.1.0.0/16"),
    "no group": ("from", "a b", "is not an address range", ""),
    "a URL": ("name", "https://x.example/", "is not a name", "the host alone"),
    "a misspelt reason": ("reason", "no_sin", "'no_sin' is no reason", "did you mean no_sni"),
    "a plane": ("plane", "jet", "'jet' is no plane", "explicit, transparent, network"),
    "a port": ("port", "65536", "is no port", "0 to 65535"),
    "a port in words": ("port", "https", "is no port", ""),
    "digits that int takes": ("port", "¹²", "is no port", ""),
    "a misspelt class": ("class", "near-mis", "is no class", "did you mean near-miss?"),
    "no class at all": ("class", "zzz", "is no class", "suspicious, missing-requirement"),
    "an action": ("action", "drop", "is no action", "one of deny, allow, any"),
    "a NUL": ("name", "a\0b", "has a NUL", ""),
    "a lone surrogate": ("name", "a\udc80", "is not Unicode text", ""),
    "a long text": ("name", "a" * (MAX_TEXT + 1), "257 characters, 256 are allowed", ""),
}


@pytest.mark.parametrize(("key", "text", "what", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_said_and_is_no_condition(
    key: str, text: str, what: str, hint: str
) -> None:
    where, (problem,) = read_filter({key: [text]}, NOW)
    assert where == Filter()
    assert problem.key == key
    assert what in problem.what
    assert hint in problem.hint
    assert len(problem.text) <= MAX_TEXT


def test_every_problem_is_told_and_the_rest_is_read() -> None:
    where, problems = read_filter({"port": ["x", "443"], "class": ["y"], "name": ["a.b"]}, NOW)
    assert where == Filter(ports=(443,), names=("a.b",))
    assert [str(problem).partition(" (")[0] for problem in problems] == [
        "port: 'x' is no port",
        "class: 'y' is no class",
    ]


def test_a_span_without_a_moment() -> None:
    where, (problem,) = read_filter({"since": ["1h"], "until": ["2h"]}, NOW)
    assert (where.since, where.until) == (None, None)
    assert str(problem).startswith("since: '1h' is not before until")


def test_conditions_are_bounded() -> None:
    where, (problem,) = read_filter({"port": [",".join(map(str, range(5000)))]}, NOW)
    assert len(where.ports) == MAX_TEXTS
    assert problem.what == "5,000 conditions, 64 are allowed"


QUERIES: dict[str, tuple[str, Filter]] = {
    "nothing": ("", Filter()),
    "a span": ("since=24h", Filter(since=NOW - 86400)),
    "a week is days": ("since=7d", Filter(since=NOW - 7 * 86400)),
    "minutes": ("since=90m", Filter(since=NOW - 5400)),
    "a moment": ("since=2026-11-20T00%3A00Z", Filter(since=at("2026-11-20T00:00"))),
    "all kinds": (
        "since=1h&until=5m&action=any&from=10.0.0.0%2F8&from=cluster-a&name=%2A.azure.com"
        "&reason=no_sni&rule=rules%2Fx&port=443&plane=explicit&class=near-miss&gateway=gw",
        Filter(
            since=NOW - 3600,
            until=NOW - 300,
            is_denied=None,
            sources=(ip_network("10.0.0.0/8"),),
            source_groups=("cluster-a",),
            names=("*.azure.com",),
            reasons=("no_sni",),
            rules=("rules/x",),
            ports=(443,),
            planes=("explicit",),
            classes=(Class.NEAR_MISS,),
            gateways=("gw",),
        ),
    ),
}


@pytest.mark.parametrize(("query", "where"), QUERIES.values(), ids=QUERIES)
def test_filters_live_in_the_url(query: str, where: Filter) -> None:
    assert query_of(where, now=NOW) == query
    assert read_filter(parse_qs(query), NOW) == (where, ())


_LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,9}[a-z])?", fullmatch=True)
_WORDS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=","), min_size=1)
_ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(network="2001:db8::/32")
FILTERS = st.builds(
    Filter,
    since=st.none() | st.integers(0, int(NOW * 1000) - 1).map(lambda ms: ms / 1000),
    is_denied=st.sampled_from([True, False, None]),
    sources=st.lists(_ADDRESSES.map(ip_network), max_size=3, unique=True).map(tuple),
    source_groups=st.lists(_LABEL, max_size=2, unique=True).map(tuple),
    names=st.lists(st.lists(_LABEL, min_size=2, max_size=3).map(".".join), unique=True).map(tuple),
    reasons=st.lists(st.sampled_from([str(r) for r in Reason]), unique=True).map(tuple),
    rules=st.lists(_WORDS, max_size=3, unique=True).map(tuple),
    ports=st.lists(st.integers(0, 65535), max_size=3, unique=True).map(tuple),
    planes=st.lists(st.sampled_from([str(p) for p in Plane]), unique=True).map(tuple),
    classes=st.lists(st.sampled_from(Class), unique=True).map(tuple),
)


@given(FILTERS, st.booleans())
def test_what_is_written_is_read_as_it_was(where: Filter, is_relative: bool) -> None:
    query = query_of(where, now=NOW if is_relative else None)
    assert read_filter(parse_qs(query), NOW) == (where, ())


@given(st.dictionaries(st.sampled_from(KEYS), st.lists(st.text()), max_size=11))
def test_any_text_is_read_or_refused(texts: dict[str, list[str]]) -> None:
    where, problems = read_filter(texts, NOW)
    assert all(problem.key in KEYS for problem in problems)
    assert read_filter(parse_qs(query_of(where, now=NOW)), NOW)[1] == ()
    assert describe(where, NOW)


WORDS: dict[str, tuple[Filter, str]] = {
    "nothing": (Filter(), "all that is kept"),
    "a day": (Filter(since=NOW - 86400), "last 24 h"),
    "a week": (Filter(since=NOW - 7 * 86400), "last 7 days"),
    "minutes": (Filter(since=NOW - 900), "last 15 min"),
    "since": (Filter(since=at("2026-11-20T00:00")), "since 2026-11-20 00:00"),
    "until": (Filter(until=at("2026-11-20T00:00")), "until 2026-11-20 00:00"),
    "between": (
        Filter(since=at("2026-11-19T00:00"), until=at("2026-11-20T08:30")),
        "2026-11-19 00:00 to 2026-11-20 08:30",
    ),
    "conditions": (
        Filter(since=NOW - 3600, names=("a.b", "*.c"), ports=(443,), classes=(Class.NEAR_MISS,)),
        "last 1 h, name a.b or *.c, port 443, class near-miss",
    ),
}


@pytest.mark.parametrize(("where", "words"), WORDS.values(), ids=WORDS)
def test_in_words(where: Filter, words: str) -> None:
    assert describe(where, NOW) == words


def test_classes_are_one_word_in_texts() -> None:
    assert all(" " not in class_text(kind) for kind in Class)

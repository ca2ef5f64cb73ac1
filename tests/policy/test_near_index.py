"""Near misses by lookup are those that the search over all rules finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.names import DnsName
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.near_index import (
    MAX_NAMES,
    MAX_NETWORKS,
    MAX_PATTERNS,
    MAX_TAILS,
    NearIndex,
    _variants,
)
from egressproxy.policy.near_miss import MAX_NEAR_MISSES, NearMiss, near_misses
from egressproxy.policy.near_name import Kind
from egressproxy.policy.rules import Policy
from egressproxy.policy.verdict import Flow
from tests.policy.building import HTTP, NOON, TCP, UDP, flow, name_list, policy, rule
from tests.policy.test_explain import NEAR, SOME
from tests.policy.test_ruleset import FLOWS, MOMENTS, POLICIES

if TYPE_CHECKING:
    from collections.abc import Iterator


def find(one: Flow, found: Policy = SOME, now: float = NOON) -> tuple[NearMiss, ...]:
    ruleset = compile_policy(found)
    return NearIndex(found, ruleset).misses(one, ruleset.decide(one, now), now)


_OTHERWISE: Final = {
    "listed prefix",  # shown by the name: the list is not read for the entry
}
SAME: Final = {name: case for name, case in NEAR.items() if name not in _OTHERWISE}


@pytest.mark.parametrize(("one", "rule_id", "kind", "text"), SAME.values(), ids=SAME)
def test_as_the_search_over_all_rules(one: Flow, rule_id: str, kind: Kind, text: str) -> None:
    best = find(one)[0]
    assert (best.rule.id, best.kind) == (rule_id, kind)
    assert text in best.text


MISSPELT = {
    "a letter is missing": "githubactons.com",
    "a letter too much": "githubacttions.com",
    "another letter": "githubactiens.com",
    "two are swapped": "githubatcions.com",
    "in a deeper label": "api.githubactons.com",
    "the dot is in another place": "github.actions.com",
}


@pytest.mark.parametrize("name", MISSPELT.values(), ids=MISSPELT)
def test_one_letter_is_enough_for_a_misspelt_name(name: str) -> None:
    found = policy(rule("actions", "githubactions.com", "*.githubactions.com"))
    assert [miss.kind for miss in find(flow(name), found)] == [Kind.SPELLING]


def test_names_of_very_many_labels_are_as_cheap_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may ask for a hundred labels; each of their suffixes had hundreds of spellings."""
    found = policy(rule("actions", "githubactions.com", "*.pkg.githubactions.com"))
    index = NearIndex(found, ruleset := compile_policy(found))
    texts: list[str] = []

    def counted(name: str) -> Iterator[str]:
        for text in _variants(name):
            texts.append(text)
            yield text

    monkeypatch.setattr("egressproxy.policy.near_index._variants", counted)
    long = ".".join(["a"] * 110)
    for name in (
        f"{long}.w1.example.com",
        f"{long}.githubactons.com",
        f"{'b' * 63}.{long[:149]}.c",
    ):
        one = flow(name)
        index.misses(one, ruleset.decide(one, NOON), NOON)
    assert len(texts) < 300


@pytest.mark.parametrize("name", ["example.org", "hub.com", "a.b.c.d.e", "test", "github.org"])
def test_strangers_have_none(name: str) -> None:
    assert find(flow(name)) == ()


_MANY: Final = " ".join(f"20.{n}.0.1" for n in range(MAX_NETWORKS + 1))
BY_ADDRESS = {
    "another port of one address": ("20.1.2.3", "tcp:443", 22, [Kind.PORT]),
    "of a small network": ("20.1.2.0/24", "tcp:443", 22, [Kind.PORT]),
    "of a large network": ("20.0.0.0/8", "tcp:443", 22, []),
    "of one among many networks": (_MANY, "tcp:443", 22, []),
}


@pytest.mark.parametrize(
    ("networks", "ports", "port", "kinds"), BY_ADDRESS.values(), ids=BY_ADDRESS
)
def test_a_port_says_something_beside_few_addresses(
    networks: str, ports: str, port: int, kinds: list[Kind]
) -> None:
    found = policy(rule("nets", *networks.split(), ports=ports))
    wanted = flow(None, port, TCP, dst=networks.split()[0].partition("/")[0])
    assert [miss.kind for miss in find(wanted, found)] == kinds


def test_a_source_says_something_beside_any_number_of_them() -> None:
    found = policy(rule("nets", "20.0.0.0/8", ports="tcp:443", sources="10.9.0.0/16"))
    assert [m.kind for m in find(flow(None, 443, TCP, dst="20.1.2.3"), found)] == [Kind.SOURCE]


def test_a_rule_for_any_address_is_near_to_nothing() -> None:
    found = policy(rule("ntp", ports="udp:123", any_destination=True))
    assert find(flow(None, 124, UDP, dst="20.1.2.3"), found) == ()


def test_lists_are_not_read_through() -> None:
    entries = tuple(f"n{n}.listed.test" for n in range(2000))
    found = policy(rule("many", lists=(name_list(*entries),)))
    assert find(flow("x.n7.listed.test"), found)[0].kind is Kind.BELOW
    assert find(flow("n7.listed.test", 80, HTTP), found)[0].kind is Kind.PORT
    assert find(flow("n7x.listed.test"), found) == ()


def test_misspellings_of_so_many_patterns_and_no_more() -> None:
    names = [f"host{n:05}.domain{n:05}.test" for n in range(MAX_PATTERNS + 1)]
    found = policy(rule("many", *names))
    assert find(flow("host00007.domain00007.tesst"), found)
    assert not find(flow(f"{names[-1]}t"), found)
    assert find(flow(f"x.{names[-1]}"), found)[0].kind is Kind.BELOW


def test_what_is_remembered_is_bounded() -> None:
    index = NearIndex(SOME, compile_policy(SOME))
    ruleset = compile_policy(SOME)
    for n in range(MAX_TAILS + 10):
        one = flow(f"x.n{n}.example")
        assert index.misses(one, ruleset.decide(one, NOON), NOON) == ()
    assert len(index._near_tails) <= MAX_TAILS
    assert len(index._known) <= MAX_NAMES


HOSTILE = ["xn--a", "xn--99999999", "xn--zzzzzzzzzzzzzzzz.com", ("a." * 126) + "a", "_", "a" * 63]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_too_odd(name: str) -> None:
    assert find(Flow(flow("a").protocol, "10.0.0.1", 443, str.__new__(DnsName, name), None)) == ()


@given(POLICIES, FLOWS, MOMENTS)
def test_less_than_the_whole_search_and_never_more(found: Policy, one: Flow, now: float) -> None:
    verdict = compile_policy(found).decide(one, now)
    whole = {(m.rule.id, m.kind) for m in near_misses(found, one, verdict, now)}
    for miss in find(one, found, now):
        assert (miss.rule.id, miss.kind) in whole


@given(POLICIES, FLOWS, MOMENTS)
def test_names_are_missed_by_nothing_but_spelling(found: Policy, one: Flow, now: float) -> None:
    one = one._replace(dst=None)
    verdict = compile_policy(found).decide(one, now)
    whole = near_misses(found, one, verdict, now)
    looked_up = {(m.rule.id, m.kind) for m in find(one, found, now)}
    for miss in whole:
        if miss.kind is not Kind.SPELLING and not miss.rule.any_destination:
            assert (miss.rule.id, miss.kind) in looked_up


@given(st.from_regex(r"[a-z0-9-]{1,20}(\.[a-z0-9-]{1,20}){0,4}", fullmatch=True))
def test_any_name(text: str) -> None:
    one = flow("a")._replace(name=str.__new__(DnsName, text))
    assert len(find(one)) <= MAX_NEAR_MISSES

"""Rules that never decide: named cases, and the law that taking them away changes no verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.names import DnsName
from egressproxy.patterns import Pattern
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.lint_cover import Cover
from egressproxy.policy.lint_finding import Code
from egressproxy.policy.lint_order import order_findings
from egressproxy.policy.lint_survey import Survey
from egressproxy.policy.verdict import Action, Flow
from egressproxy.ports import PortSpan, Protocol
from tests.policy.building import (
    DENY,
    HTTP,
    NOON,
    TCP,
    TLS,
    TODAY,
    TOMORROW,
    UDP,
    YESTERDAY,
    name_list,
    networks,
    policy,
    rule,
)
from tests.policy.linting import texts, told
from tests.policy.test_ruleset import EVERY_QUESTION, numbered, rules

if TYPE_CHECKING:
    from egressproxy.policy.rules import Policy, Rule

SHADOWED, REDUNDANT, DUPLICATE = "shadowed", "redundant", "duplicate"
MIRRORS = name_list("a.test", "b.test", "*.c.test")
WIDE_LIST = name_list("*.test")

COVERED = {
    "the same": (rule("a", "x.test"), rule("b", "x.test"), DUPLICATE),
    "the same in another order": (
        rule("a", "x.test", "y.test", ports="https http"),
        rule("b", "y.test", "x.test", ports="http https"),
        DUPLICATE,
    ),
    "the same list": (rule("a", lists=(MIRRORS,)), rule("b", lists=(MIRRORS,)), DUPLICATE),
    "an equal list of another file": (
        rule("a", lists=(MIRRORS,)),
        rule("b", lists=(replace(MIRRORS, entries=(*MIRRORS.entries[:1], *MIRRORS.entries[1:])),)),
        REDUNDANT,
    ),
    "one of its names": (rule("a", "x.test", "y.test"), rule("b", "x.test"), REDUNDANT),
    "below a wildcard": (rule("a", "*.x.test"), rule("b", "a.b.x.test"), REDUNDANT),
    "a wildcard below a wildcard": (rule("a", "*.x.test"), rule("b", "*.b.x.test"), REDUNDANT),
    "a prefix below a wildcard": (rule("a", "*.x.test"), rule("b", "md-*.x.test"), REDUNDANT),
    "a longer prefix": (rule("a", "md-*.x.test"), rule("b", "md-a*.b.x.test"), REDUNDANT),
    "a name with the prefix": (rule("a", "md-*.x.test"), rule("b", "md-1.z.x.test"), REDUNDANT),
    "a name of a list": (rule("a", lists=(MIRRORS,)), rule("b", "b.test", "x.c.test"), REDUNDANT),
    "a list below a wildcard": (rule("a", "*.test"), rule("b", lists=(MIRRORS,)), REDUNDANT),
    "a list below a list": (
        rule("a", lists=(WIDE_LIST,)),
        rule("b", lists=(MIRRORS,)),
        REDUNDANT,
    ),
    "fewer ports": (rule("a", "x.test", ports="https http"), rule("b", "x.test"), REDUNDANT),
    "fewer sources": (rule("a", "x.test"), rule("b", "x.test", sources="10.1.0.0/16"), REDUNDANT),
    "sources in wider ones": (
        rule("a", "x.test", sources="10.1.0.0/17 10.1.128.0/17"),
        rule("b", "x.test", sources="10.1.0.0/16"),
        REDUNDANT,
    ),
    "other outcome": (rule("a", "*.x.test", action=DENY), rule("b", "a.x.test"), SHADOWED),
    "a deny after an allow": (rule("a", "*.x.test"), rule("b", "a.x.test", action=DENY), SHADOWED),
    "a trial before what enforces": (
        rule("a", "x.test", action=DENY, audit=True),
        rule("b", "x.test", action=DENY),
        SHADOWED,
    ),
    "its addresses do not count": (
        rule("a", "x.test"),
        rule("b", "x.test", addresses=networks("10.5.0.0/24")),
        SHADOWED,
    ),
    "a deny has no addresses to lose": (
        rule("a", "x.test", action=DENY),
        rule("b", "x.test", action=DENY, addresses=networks("10.5.0.0/24")),
        DUPLICATE,
    ),
    "ends no later": (
        rule("a", "*.x.test", until=TOMORROW),
        rule("b", "a.x.test", until=TODAY),
        REDUNDANT,
    ),
    "network": (
        rule("a", "20.9.0.0/16", ports="tcp:1-9999"),
        rule("b", "20.9.1.0/24", "20.9.2.2", ports="tcp:1433 tcp:22-80"),
        REDUNDANT,
    ),
    "network below any": (
        rule("a", "any", ports="udp:53"),
        rule("b", "20.9.1.0/24", "2001:db8::/32", ports="udp:53"),
        REDUNDANT,
    ),
    "name on tcp below any": (
        rule("a", "any", ports="tcp:22"),
        rule("b", "ssh.test", ports="tcp:22"),
        REDUNDANT,
    ),
    "any after any": (
        rule("a", "any", ports="udp:123"),
        rule("b", "any", ports="udp:123"),
        DUPLICATE,
    ),
    "IPv6": (
        rule("a", "2001:db8::/32", ports="tcp:443"),
        rule("b", "2001:db8:1::/48", ports="tcp:443"),
        REDUNDANT,
    ),
    "network of the other outcome": (
        rule("a", "20.9.0.0/16", ports="tcp:443", action=DENY),
        rule("b", "20.9.1.0/24", ports="tcp:443"),
        SHADOWED,
    ),
    "both passes": (
        rule("a", "x.test", "y.test", ports="https tcp:22"),
        rule("b", "x.test", ports="https tcp:22"),
        REDUNDANT,
    ),
}


@pytest.mark.parametrize(("first", "second", "code"), COVERED.values(), ids=COVERED)
def test_covered(first: Rule, second: Rule, code: str) -> None:
    assert told(order_findings, first, second) == {(code, "b")}


OPEN = {
    "other names": (rule("a", "x.test"), rule("b", "y.test")),
    "one name more": (rule("a", "x.test"), rule("b", "x.test", "y.test")),
    "the apex": (rule("a", "*.x.test"), rule("b", "x.test")),
    "a wildcard and its apex": (rule("a", "x.test"), rule("b", "*.x.test")),
    "a wider wildcard": (rule("a", "*.b.x.test"), rule("b", "*.x.test")),
    "another prefix": (rule("a", "md-*.x.test"), rule("b", "me-*.x.test")),
    "a shorter prefix": (rule("a", "md-a*.x.test"), rule("b", "md-*.x.test")),
    "the prefix itself": (rule("a", "md*.x.test"), rule("b", "md.x.test")),
    "all below a prefix": (rule("a", "md-*.x.test"), rule("b", "*.x.test")),
    "not the evil twin": (rule("a", "*.x.test"), rule("b", "evilx.test")),
    "one entry more": (rule("a", "a.test", "b.test"), rule("b", lists=(MIRRORS,))),
    "another port": (rule("a", "x.test"), rule("b", "x.test", ports="tls:8443")),
    "another protocol": (rule("a", "x.test"), rule("b", "x.test", ports="http:443")),
    "one port more": (rule("a", "x.test"), rule("b", "x.test", ports="https http")),
    "one pass more": (rule("a", "x.test"), rule("b", "x.test", ports="https tcp:22")),
    "a longer span": (
        rule("a", "20.9.0.0/16", ports="tcp:1-100"),
        rule("b", "20.9.0.0/16", ports="tcp:1-101"),
    ),
    "udp is not tcp": (
        rule("a", "20.9.0.0/16", ports="tcp:53"),
        rule("b", "20.9.0.0/16", ports="udp:53"),
    ),
    "other clients": (
        rule("a", "x.test", sources="10.1.0.0/16"),
        rule("b", "x.test", sources="10.2.0.0/16"),
    ),
    "more clients": (rule("a", "x.test", sources="10.1.0.0/16"), rule("b", "x.test")),
    "a wider network": (
        rule("a", "20.9.1.0/24", ports="tcp:443"),
        rule("b", "20.9.0.0/16", ports="tcp:443"),
    ),
    "a network is no name": (
        rule("a", "0.0.0.0/0", ports="tcp:22"),
        rule("b", "ssh.test", ports="tcp:22"),
    ),
    "by address is another pass": (rule("a", "any", ports="tcp:443"), rule("b", "x.test")),
    "any address is no name": (rule("a", "any", ports="https tcp:22"), rule("b", "x.test")),
    "until some day": (rule("a", "x.test", action=DENY, until=TODAY), rule("b", "x.test")),
    "a trial that ends": (
        rule("a", "x.test", audit=True, audit_until=TODAY),
        rule("b", "x.test"),
    ),
    "expired already": (rule("a", "x.test", until=YESTERDAY), rule("b", "x.test")),
    "after one that expired": (rule("a", "x.test"), rule("b", "x.test", until=YESTERDAY)),
    "for nobody": (rule("a", "x.test", sources=()), rule("b", "x.test", sources=())),
    "narrow before wide, as people write": (
        rule("a", "gist.x.test", action=DENY),
        rule("b", "*.x.test"),
    ),
    "a range out of a tag": (
        rule("a", "20.9.1.0/24", ports="tcp:443", action=DENY),
        rule("b", "20.9.1.0/24", "20.9.2.0/24", ports="tcp:443", tags=("Sql",)),
    ),
    "a listed name out of a list": (
        rule("a", "a.test", action=DENY),
        rule("b", lists=(MIRRORS,)),
    ),
}


@pytest.mark.parametrize(("first", "second"), OPEN.values(), ids=OPEN)
def test_not_covered(first: Rule, second: Rule) -> None:
    assert told(order_findings, first, second) == set()


def test_several_together() -> None:
    found = [
        rule("a", "x.test", ports="https"),
        rule("b", "x.test", "*.y.test", ports="http"),
        rule("c", "a.y.test"),
        rule("d", "x.test", "a.y.test", ports="https http"),
    ]
    assert told(order_findings, *found) == {(REDUNDANT, "d")}
    (text,) = texts(order_findings, *found)
    assert "a (policy.yaml:7), b (policy.yaml:7) and c (policy.yaml:7) allow all of it" in text
    found[0] = replace(found[0], action=DENY)
    (text,) = texts(order_findings, *found)
    assert "decide all of it before -> move it up, before a, or remove it" in text


PARTS = {
    "a denied name": (
        rule("a", "gist.x.test", action=DENY),
        rule("b", "x.test", "gist.x.test"),
        "gist.x.test never counts: a (policy.yaml:7) denies that before",
    ),
    "a deny too late": (
        rule("a", "*.x.test"),
        rule("b", "gist.x.test", "y.test", action=DENY),
        "gist.x.test never counts: a (policy.yaml:7) allows that before",
    ),
    "several": (
        rule("a", "*.x.test", action=DENY),
        rule("b", "a.x.test", "b.x.test", "c.x.test", "d.x.test", "x.test"),
        "a.x.test, b.x.test, c.x.test and 1 more never count: a (policy.yaml:7) denies that",
    ),
    "a range": (
        rule("a", "20.9.0.0/16", ports="tcp:1-500", action=DENY),
        rule("b", "20.9.1.0/24", "20.8.1.0/24", ports="tcp:443"),
        "20.9.1.0/24 never counts: a (policy.yaml:7) denies that before",
    ),
}


@pytest.mark.parametrize(("first", "second", "text"), PARTS.values(), ids=PARTS)
def test_parts_of_a_rule(first: Rule, second: Rule, text: str) -> None:
    assert told(order_findings, first, second) == {(SHADOWED, "b")}
    (said,) = texts(order_findings, first, second)
    assert said.startswith(text)


def test_a_part_that_is_the_same_is_not_told() -> None:
    assert told(order_findings, rule("a", "x.test"), rule("b", "x.test", "y.test")) == set()


def test_what_is_lost_is_named() -> None:
    second = rule("b", "x.test", addresses=networks("10.5.0.0/24"), audit=True)
    (text,) = texts(order_findings, rule("a", "x.test"), second)
    assert "allows all of it before, and its own audit, addresses do not count" in text


CORE = rule("aks/core#mcr", "mcr.test", requirement="aks/core")
ROWS = {
    "rules may be wider than a row": ((rule("a", "*.test"), CORE), set()),
    "requirements overlap": (
        (CORE, replace(CORE, id="aks/x#mcr", requirement="aks/x")),
        set(),
    ),
    "a deny of a row": (
        (rule("a", "*.test", action=DENY), CORE),
        {(SHADOWED, "aks/core#mcr")},
    ),
    "a deny of a part of a row": (
        (
            rule("a", "mcr.test", action=DENY),
            replace(CORE, patterns=rule("", "*.test", "mcr.test").patterns),
        ),
        {(SHADOWED, "aks/core#mcr")},
    ),
    "the addresses of a row": (
        (rule("a", "mcr.test"), replace(CORE, addresses=networks("10.5.0.0/24"))),
        {(SHADOWED, "aks/core#mcr")},
    ),
    "the addresses of one row of two": (
        (CORE, replace(CORE, id="acr#x", requirement="acr", addresses=networks("10.5.0.0/24"))),
        set(),
    ),
    "listed twice": (
        (replace(CORE, id="aks/core#mcr@1"), replace(CORE, id="aks/core#mcr@2")),
        {(DUPLICATE, "aks/core#mcr@2")},
    ),
    "listed twice with another row": (
        (
            replace(CORE, id="aks/core#mcr@1"),
            replace(CORE, id="aks/core#mcr@2"),
            replace(CORE, id="aks/core#api@2", patterns=rule("", "api.test").patterns),
        ),
        set(),
    ),
    "listed for two clusters": (
        (
            replace(CORE, id="aks/core#mcr@a", sources=networks("10.1.0.0/16")),
            replace(CORE, id="aks/core#mcr@b", sources=networks("10.2.0.0/16")),
        ),
        set(),
    ),
}


@pytest.mark.parametrize(("found", "expected"), ROWS.values(), ids=ROWS)
def test_requirements(found: tuple[Rule, ...], expected: set[tuple[str, str]]) -> None:
    assert told(order_findings, *found) == expected


# Laws

NEVER_DECIDE = (Code.SHADOWED, Code.REDUNDANT, Code.DUPLICATE)
CROWDED = st.builds(
    numbered, st.lists(rules(Action.ALLOW, Action.ALLOW, Action.DENY), min_size=2, max_size=8)
)
DENSE = st.builds(
    numbered,
    st.lists(
        st.builds(
            rule,
            st.just("r"),
            patterns=st.lists(
                st.sampled_from(
                    [
                        Pattern(DnsName(s), p)
                        for s in ("a.test", "x.a.test")
                        for p in (None, "", "x")
                    ]
                ),
                max_size=2,
                unique=True,
            ).map(tuple),
            lists=st.sampled_from([(), (), (name_list("x.a.test", "*.x.a.test"),)]),
            networks=st.sampled_from(
                [(), networks("10.0.0.0/8"), networks("10.0.0.0/24", "2001:db8::/32")]
            ),
            any_destination=st.sampled_from([False, False, False, True]),
            ports=st.sampled_from(
                [
                    (PortSpan(TLS, 443, 443),),
                    (PortSpan(TLS, 443, 443), PortSpan(HTTP, 80, 80)),
                    (PortSpan(TCP, 1, 443),),
                    (PortSpan(TCP, 443, 443), PortSpan(UDP, 443, 443)),
                ]
            ),
            sources=st.sampled_from([None, None, networks("10.0.0.0/24"), networks("10.0.0.0/23")]),
            action=st.sampled_from([Action.ALLOW, Action.DENY]),
            until=st.sampled_from([None, None, TODAY]),
        ),
        min_size=2,
        max_size=6,
    ),
)
FLOWS = [
    *EVERY_QUESTION,
    *(
        Flow(protocol, "10.0.0.1", port, DnsName(name))
        for name in ("a.test", "x.a.test", "xy.a.test", "z.x.a.test", "xx.x.a.test")
        for protocol, port in ((TLS, 443), (HTTP, 80), (TCP, 443), (TCP, 22))
    ),
]


def dead_rules(found: Policy) -> set[str]:
    """The rules of which it is said that they never decide, and not just a part of them."""
    return {
        finding.rule_id or ""
        for finding in order_findings(Survey.of(found, NOON))
        if finding.code in NEVER_DECIDE and "never count" not in finding.text
    }


@given(st.one_of(CROWDED, DENSE))
def test_taking_away_what_never_decides_changes_no_verdict(found: Policy) -> None:
    dead = dead_rules(found)
    if not dead:
        return
    kept = policy(*(rule for rule in found.rules if rule.id not in dead))
    before, after = compile_policy(found), compile_policy(kept)
    for one in FLOWS:
        assert before.decide(one, NOON) == after.decide(one, NOON)
        assert before.decide_application(one, NOON) == after.decide_application(one, NOON)
        assert before.decide_network(one, NOON) == after.decide_network(one, NOON)


@given(DENSE)
def test_taking_away_a_part_that_never_counts_changes_no_verdict(found: Policy) -> None:
    asked = Survey.of(found, NOON)
    cover = Cover(asked)
    kept = list(found.rules)
    for number, each in asked.in_force():
        kept[number] = replace(
            each,
            patterns=tuple(p for p in each.patterns if not cover.of_name(number, str(p))),
            networks=tuple(n for n in each.networks if not cover.of_network(number, n)),
        )
    before, after = compile_policy(found), compile_policy(policy(*kept))
    for one in FLOWS:
        verdict, other = before.decide(one, NOON), after.decide(one, NOON)
        assert (verdict.action, verdict.rule_id) == (other.action, other.rule_id)


def plainly_covers(first: Rule, second: Rule) -> bool:
    """Whether one rule decides all of another, by trying: for rules with names and sources only."""
    return (
        {*second.ports} <= {*first.ports}
        and (first.sources is None or first.sources == second.sources)
        and all(
            any(
                pattern.matches(name)
                for pattern in first.patterns
                for name in [str(wanted).replace("*", "q")]
            )
            and any(pattern.matches(str(wanted).replace("*", "q.q")) for pattern in first.patterns)
            for wanted in second.patterns
            if not wanted.is_exact
        )
        and all(
            any(pattern.matches(wanted.suffix) for pattern in first.patterns)
            for wanted in second.patterns
            if wanted.is_exact
        )
    )


@given(DENSE)
def test_what_one_earlier_rule_covers_is_found(found: Policy) -> None:
    plain = numbered(
        [
            replace(rule, networks=(), any_destination=False, lists=(), until=None)
            for rule in found.rules
            if rule.patterns
        ]
    )
    expected = {
        second.id
        for number, second in enumerate(plain.rules)
        if any(plainly_covers(first, second) for first in plain.rules[:number])
    }
    assert expected <= dead_rules(plain)


def test_protocols_are_those_of_the_flows() -> None:
    """The laws above ask about every protocol there is."""
    assert {one.protocol for one in FLOWS} == set(Protocol)

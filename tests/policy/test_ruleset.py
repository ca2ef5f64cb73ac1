"""The compiled ruleset against the plain judge, and the laws that hold of every policy."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from egressproxy.names import DnsName
from egressproxy.patterns import Pattern
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.rules import Destination, Ech, Mode, OnReload, Refusal, SniCheck
from egressproxy.policy.ship import receive, ship
from egressproxy.policy.verdict import Action, Flow, Pass, Reason
from egressproxy.ports import PortSpan, Protocol
from tests.policy.building import (
    ALLOW,
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
    plain_application,
    plain_decide,
    plain_network,
    policy,
    rule,
)

if TYPE_CHECKING:
    from egressproxy.policy.rules import Policy, Rule

LABELS = st.sampled_from(["a", "b", "ab", "abc", "md-1", "md-1x", "x_y"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(lambda labels: ".".join([*labels, "test"]))
SUFFIXES = st.lists(LABELS, max_size=2).map(lambda labels: ".".join([*labels, "test"]))
PATTERNS = st.builds(
    lambda prefix, suffix: Pattern(DnsName(suffix), prefix),
    st.sampled_from([None, None, "", "", "a", "ab", "md-", "md-1", "x"]),
    SUFFIXES,
)
LISTS = st.lists(PATTERNS, max_size=6).map(lambda found: name_list(*map(str, dict.fromkeys(found))))
ADDRESSES = st.sampled_from(
    ["10.0.0.1", "10.0.0.2", "10.0.1.1", "10.9.9.9", "192.0.2.1", "2001:db8::1", "2001:db8:1::1"]
)
NETWORKS = st.lists(
    st.sampled_from(
        networks(
            *("10.0.0.0/24", "10.0.0.1/32", "10.0.0.0/8", "0.0.0.0/0", "10.0.0.2/31"),
            *("2001:db8::/32", "2001:db8::/48", "::/0", "2001:db8::1/128"),
        )
    ),
    max_size=3,
).map(tuple)
PORTS = st.lists(
    st.sampled_from(
        [
            *(PortSpan(TLS, 443, 443), PortSpan(TLS, 8443, 8443), PortSpan(HTTP, 80, 80)),
            *(PortSpan(TCP, 443, 443), PortSpan(TCP, 1, 100), PortSpan(UDP, 53, 443)),
        ]
    ),
    min_size=1,
    max_size=3,
).map(tuple)
DAYS = st.sampled_from([None, None, YESTERDAY, TODAY, TOMORROW])


def rules(*actions: Action) -> st.SearchStrategy[Rule]:
    return st.builds(
        rule,
        st.just("r"),
        ports=PORTS,
        patterns=st.lists(PATTERNS, max_size=3).map(tuple),
        lists=st.lists(LISTS, max_size=1).map(tuple),
        networks=NETWORKS,
        any_destination=st.sampled_from([False, False, False, True]),
        action=st.sampled_from(actions),
        sources=st.one_of(st.none(), st.none(), NETWORKS),
        until=DAYS,
        audit=st.sampled_from([False, False, False, True]),
        audit_until=DAYS,
        sni=st.sampled_from(SniCheck),
        ech=st.sampled_from(Ech),
    )


def numbered(rules: list[Rule], **fields: Any) -> Policy:
    """Ids are unique, so that two judges who name the same rule mean the same one."""
    return policy(*(replace(each, id=f"r{i}") for i, each in enumerate(rules)), **fields)


POLICIES = st.builds(
    numbered,
    st.lists(rules(ALLOW, ALLOW, DENY), max_size=8),
    mode=st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.AUDIT]),
    audit_until=DAYS,
    ech=st.sampled_from([Ech.ALLOW, Ech.ALLOW, Ech.REFUSE]),
)
FLOWS = st.builds(
    Flow,
    protocol=st.sampled_from(Protocol),
    src=ADDRESSES,
    port=st.sampled_from([443, 443, 8443, 80, 53, 101]),
    name=st.one_of(st.none(), NAMES.map(DnsName)),
    dst=st.one_of(st.none(), ADDRESSES),
    connect=st.one_of(st.none(), st.none(), NAMES.map(DnsName)),
    ech=st.booleans(),
    fault=st.one_of(st.none(), st.none(), st.sampled_from(Reason)),
)
DAY = timedelta(days=1).total_seconds()
MOMENTS = st.sampled_from([NOON - DAY, NOON, NOON + DAY / 2 - 1e-3, NOON + DAY / 2, NOON + 2 * DAY])


@given(POLICIES, st.lists(FLOWS, min_size=1, max_size=6), MOMENTS)
def test_agrees_with_the_plain_judge(found: Policy, flows: list[Flow], now: float) -> None:
    ruleset = compile_policy(found)
    for one in [*flows, *flows]:  # the second time from memory
        assert ruleset.decide(one, now) == plain_decide(found, one, now)
        assert ruleset.decide_network(one, now) == plain_network(found, one, now)
        assert ruleset.decide_application(one, now) == plain_application(found, one, now)


@given(POLICIES, FLOWS, MOMENTS)
def test_an_allow_of_pass_1_is_no_word_for_a_name(found: Policy, one: Flow, now: float) -> None:
    ruleset, by_both = compile_policy(found), plain_decide(found, one, now)
    is_by_address = by_both.action is ALLOW and by_both.decided_by is Pass.NETWORK
    wanted = plain_application(found, one, now) if is_by_address else by_both
    assert ruleset.decide_name(one, now) == wanted


@given(POLICIES, FLOWS, MOMENTS)
def test_pass_1_decides_only_at_ports_it_has_rules_for(
    found: Policy, flow: Flow, now: float
) -> None:
    ruleset = compile_policy(found)
    if ruleset.decide_network(flow._replace(fault=None), now) is not None:
        assert ruleset.has_network_rules(flow.port)


CROWDS = st.builds(
    numbered,
    st.lists(
        st.builds(
            rule,
            st.just("r"),
            st.sampled_from(["*.a.test", "x.a.test"]),
            ports=PORTS,
            action=st.sampled_from([ALLOW, DENY]),
            sources=st.one_of(st.none(), NETWORKS),
            networks=NETWORKS,
        ),
        min_size=4,
        max_size=12,
    ),
    audit_until=st.none(),
)
EVERY_QUESTION = [
    Flow(protocol, src, port, DnsName(name), dst, connect)
    for name in ("x.a.test", "y.a.test", "none.test")
    for connect in (None, DnsName("x.a.test"))
    for src in ("10.0.0.1", "10.0.1.1", "192.0.2.1", "2001:db8::1")
    for dst in (None, "10.0.0.2", "10.9.9.9", "2001:db8:1::1")
    for protocol, port in ((TLS, 443), (TLS, 8443), (HTTP, 80), (TCP, 443), (TCP, 80), (UDP, 443))
]


@settings(max_examples=30, phases=(Phase.generate,))  # shrinking so many questions takes minutes
@given(CROWDS, st.integers(0, 99))
def test_no_answer_is_remembered_for_another_question(found: Policy, seed: int) -> None:
    """Many rules name one thing, and differ in all else that a memo's key must hold."""
    ruleset = compile_policy(found)
    for one in random.Random(seed).sample(EVERY_QUESTION, len(EVERY_QUESTION)):
        assert ruleset.decide(one, NOON) == plain_decide(found, one, NOON)


@given(POLICIES, FLOWS, st.lists(MOMENTS, min_size=2, max_size=5))
def test_time_may_go_either_way(found: Policy, one: Flow, moments: list[float]) -> None:
    ruleset = compile_policy(found)
    for now in moments:
        assert ruleset.decide(one, now) == plain_decide(found, one, now)


@given(POLICIES, st.lists(FLOWS, min_size=1, max_size=4), MOMENTS)
def test_shipping_changes_no_verdict(found: Policy, flows: list[Flow], now: float) -> None:
    here = compile_policy(found)
    with ship(here) as shipment:
        there = receive(shipment.chunks, shipment.fds, pause=lambda: None)
    for one in flows:
        verdict = there.decide(one, now)
        assert verdict == here.decide(one, now)
        assert (verdict.rule and verdict.rule.id) == verdict.rule_id
    assert there.next_expiry(now) == here.next_expiry(now)
    assert there.application_ports() == here.application_ports()


@given(POLICIES, rules(ALLOW), FLOWS, MOMENTS)
def test_an_allow_rule_at_the_end_never_denies_more(
    found: Policy, last: Rule, one: Flow, now: float
) -> None:
    last = replace(last, sni=SniCheck.SAME, ech=Ech.ALLOW)
    before = compile_policy(found).decide(one, now)
    after = compile_policy(replace(found, rules=(*found.rules, replace(last, id="last")))).decide(
        one, now
    )
    assert after.is_allow or not before.is_allow


@given(POLICIES, FLOWS, MOMENTS)
def test_audit_only_ever_softens(found: Policy, one: Flow, now: float) -> None:
    enforced = compile_policy(replace(found, mode=Mode.ENFORCE)).decide(one, now)
    audited = compile_policy(replace(found, mode=Mode.AUDIT, audit_until=None)).decide(one, now)
    if enforced.is_allow:
        assert audited == enforced
    elif audited.is_allow:
        assert audited.would_deny
        assert audited.reason is enforced.reason


@given(st.text(), st.text(), st.text(), st.text(), st.integers())
def test_never_raises(src: str, name: str, dst: str, connect: str, port: int) -> None:
    ruleset = compile_policy(
        policy(rule("a", "*.a.test", "any", ports="https tcp:1-9", until=TODAY))
    )
    hostile = Flow(TLS, src, port, str.__new__(DnsName, name), dst, str.__new__(DnsName, connect))
    for one in (hostile, hostile._replace(connect=None), hostile._replace(protocol=UDP)):
        for now in (NOON, 0.0, -1e300, float("nan"), float("inf")):
            assert ruleset.decide(one, now).action in (ALLOW, DENY)
            ruleset.decide_network(one, now)
            ruleset.decide_application(one, now)


def test_the_policys_own_settings() -> None:
    found = policy(
        rule("a", "a.test", ports="https http tls:8443 tcp:22"),
        digest="ab" * 32,
        mode=Mode.AUDIT,
        refusal=Refusal.RESET,
        on_reload=OnReload.KEEP,
        destination=Destination.STRICT,
        ech=Ech.REFUSE,
    )
    ruleset = compile_policy(found)
    assert ruleset.digest == found.digest
    assert (ruleset.policy_mode, ruleset.refusal) == (found.mode, found.refusal)
    assert (ruleset.on_reload, ruleset.destination) == (found.on_reload, found.destination)
    assert ruleset.ech is found.ech
    assert ruleset.application_ports() == {(TLS, 443), (HTTP, 80), (TLS, 8443)}

"""What ``explain`` says; and that it never disagrees with ``decide``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from egressproxy.policy.compile import compile_policy
from egressproxy.policy.explain import Explanation, explain, why
from egressproxy.policy.near_miss import MAX_NEAR_MISSES
from egressproxy.policy.near_name import Kind
from egressproxy.policy.rules import Mode
from egressproxy.policy.verdict import Flow, Reason
from tests.policy.building import (
    DENY,
    HTTP,
    NOON,
    TCP,
    UDP,
    YESTERDAY,
    flow,
    name_list,
    policy,
    rule,
)
from tests.policy.test_ruleset import FLOWS, MOMENTS, POLICIES

if TYPE_CHECKING:
    from egressproxy.policy.rules import Policy

SOME = policy(
    rule("no-gists", "gist.github.com", action=DENY),
    rule("github", "github.com", "*.github.com"),
    rule("wild", "*.apexless.test"),
    rule("one", "mcr.microsoft.com"),
    rule("build", "wheels.example", sources="10.241.4.0/24", source_groups=("build",)),
    rule("nets", "npm.test", sources="10.1.0.0/24 10.2.0.0/24 10.3.0.0/24 10.4.0.0/24"),
    rule("old", "old.test", until=YESTERDAY),
    rule("region", "*.hcp.japaneast.azmk8s.io"),
    rule("disks", "md-*.storage.test"),
    rule("api", "20.1.2.3", ports="tcp:443"),
    rule("ssh", "ssh.test", ports="tcp:22"),
    rule("no-range", "20.9.9.0/24", ports="tcp:443", action=DENY),
    rule("range", "20.9.0.0/16", ports="tcp:443"),
    rule("time", "time.test", ports="tcp:123 udp:123"),
    rule("ntp", "ntp.ubuntu.com", ports="udp:123"),
    rule("h3", "h3.test", ports="udp:443"),
    rule("many", lists=(name_list("a.listed.test", "*.deep.test", "x-*.deeper.test"),)),
    sources=(("build", rule("x", sources="10.241.4.0/24").sources or ()),),
)


def ask(one: Flow, found: Policy = SOME) -> Explanation:
    return explain(found, compile_policy(found), one, NOON)


NEAR = {
    "apex": (flow("apexless.test"), "wild", Kind.APEX, "*.apexless.test does not cover the apex"),
    "below": (flow("x.mcr.microsoft.com"), "one", Kind.BELOW, "below it are *.mcr.microsoft.com"),
    "source": (flow("wheels.example"), "build", Kind.SOURCE, "only from build"),
    "sources": (flow("npm.test"), "nets", Kind.SOURCE, "10.3.0.0/24 and 1 more"),
    "port": (flow("github.com", 8443), "github", Kind.PORT, "on tls:443, not on tls:8443"),
    "protocol": (flow("github.com", 443, HTTP), "github", Kind.PROTOCOL, "not on http:443"),
    "http": (flow("github.com", 80, HTTP), "github", Kind.PORT, "on tls:443, not on http:80"),
    "tcp by name": (flow("ssh.test", 22), "ssh", Kind.PROTOCOL, "on tcp:22, not on tls:22"),
    "expired": (flow("old.test"), "old", Kind.EXPIRED, "until 2026-06-14"),
    "shadowed": (flow("gist.github.com"), "github", Kind.SHADOWED, "no-gists is judged first"),
    "prefix": (flow("xd-1.storage.test"), "disks", Kind.PREFIX, "start with 'md-'"),
    "region": (flow("a.hcp.eastus.azmk8s.io"), "region", Kind.LABEL, "'japaneast' where this has"),
    "spelling": (flow("githb.com"), "github", Kind.SPELLING, "github.com is spelt"),
    "spelling of a domain": (flow("mcr.mircosoft.com"), "one", Kind.SPELLING, "has 'microsoft'"),
    "homoglyph": (
        flow("g\u0131thub.com"),
        "github",
        Kind.LOOKALIKE,
        "LATIN SMALL LETTER DOTLESS I",
    ),
    "digits": (flow("g1thub.com"), "github", Kind.LOOKALIKE, "only looks like github.com"),
    "address port": (flow(None, 22, TCP, dst="20.1.2.3"), "api", Kind.PORT, "not on tcp:22"),
    "udp": (flow(None, 443, UDP, dst="20.1.2.3"), "api", Kind.PROTOCOL, "not on udp:443"),
    "range shadowed": (flow(None, 443, TCP, dst="20.9.9.9"), "range", Kind.SHADOWED, "20.9.0.0/16"),
    "listed": (flow("a.listed.test", 80, HTTP), "many", Kind.PORT, "a.listed.test (names.txt)"),
    "listed apex": (flow("deep.test"), "many", Kind.APEX, "*.deep.test (names.txt) does not"),
    "below listed": (flow("x.a.listed.test"), "many", Kind.BELOW, "a.listed.test (names.txt) is"),
    "listed prefix": (flow("x-1.deeper.test", 1), "many", Kind.PORT, "x-*.deeper.test (names.txt)"),
}


@pytest.mark.parametrize(("one", "rule_id", "kind", "text"), NEAR.values(), ids=NEAR)
def test_near_misses(one: Flow, rule_id: str, kind: Kind, text: str) -> None:
    explanation = ask(one)
    assert not explanation.verdict.is_allow
    best = explanation.near_misses[0]
    assert (best.rule.id, best.kind) == (rule_id, kind)
    assert text in best.text


@pytest.mark.parametrize("name", ["example.org", "www.example.com", "a.b.c.d.e", "test"])
def test_strangers_have_none(name: str) -> None:
    assert ask(flow(name)).near_misses == ()


NEEDED = {
    "name": (
        flow("example.org"),
        ["rules:", "  - to: [example.org]", "    ports: [https]", "    from: [10.0.0.1]"],
    ),
    "group": (
        flow("example.org", 80, HTTP, src="10.241.4.1"),
        ["rules:", "  - to: [example.org]", "    ports: [http]", "    from: [build]"],
    ),
    "anyone": (
        flow("example.org", 8443, src=""),
        [
            "# asked as tls; --protocol tcp or udp asks by address",
            "rules:",
            "  - to: [example.org]",
            '    ports: ["tls:8443"]',
        ],
    ),
    "allowed by address": (
        flow("ssh.test", 22),
        ["# asked as tls; --protocol tcp asks by address"],
    ),
    "allowed by address on both": (
        flow("time.test", 123),
        ["# asked as tls; --protocol tcp or udp asks by address"],
    ),
    "quic is no word on tls": (
        flow("h3.test", src=""),
        ["rules:", "  - to: [h3.test]", "    ports: [https]"],
    ),
    "needed by a requirement, allowed by address": (
        flow("ntp.ubuntu.com", 123),
        ["# asked as tls; --protocol udp asks by address"],
    ),
    "address": (
        flow(None, dst="20.1.2.4", fault=Reason.NO_SNI, src=""),
        ["rules:", "  - to: [20.1.2.4]", '    ports: ["tcp:443"]'],
    ),
    "address v6": (
        flow(None, 53, UDP, dst="2001:db8::1", src="2001:db8::2"),
        ["rules:", '  - to: ["2001:db8::1"]', '    ports: ["udp:53"]', '    from: ["2001:db8::2"]'],
    ),
    "before the deny": (
        flow("gist.github.com", src=""),
        [
            "rules:",
            "  # before no-gists (policy.yaml:7)",
            "  - to: [gist.github.com]",
            "    ports: [https]",
        ],
    ),
    "later until": (flow("old.test"), ["# a later until: in old (policy.yaml:7)"]),
    "lookalike": (flow("g1thub.com"), ["# first make sure that this is the name you mean"]),
    "harmless": (
        flow("md-x.z1.blob.storage.azure.net"),
        ["# nothing: documented as harmless when blocked"],
    ),
    "requirement": (
        flow("data.policy.core.windows.net"),
        ["requirements:", "  - aks/azure-policy"],
    ),
    "bytes": (
        flow(fault=Reason.MALFORMED_HELLO),
        ["# no rule can allow this: the client's bytes are refused, see the reason"],
    ),
    "quic": (
        flow(None, 443, UDP, dst="192.0.2.1", src=""),
        [
            "# nothing: clients fall back to TCP, where the name is judged; or, by address and"
            " unseen:",
            "rules:",
            "  - to: [192.0.2.1]",
            '    ports: ["udp:443"]',
        ],
    ),
    "nothing known": (flow(fault=Reason.NO_SNI), ["# a name or an address to allow"]),
    "allowed": (flow("github.com"), []),
}


@pytest.mark.parametrize(("one", "lines"), NEEDED.values(), ids=NEEDED)
def test_what_would_be_needed(one: Flow, lines: list[str]) -> None:
    assert list(ask(one).needed) == lines


def test_an_allow() -> None:
    explanation = ask(flow("api.github.com", src="10.241.4.9"))
    assert explanation.verdict.is_allow
    assert explanation.rule is SOME.rules[1]
    assert explanation.mentioned_as == "*.github.com"
    assert (explanation.source_group, explanation.note) == ("build", "")
    assert (explanation.near_misses, explanation.needed) == ((), ())


def test_an_audited_deny_is_explained_like_a_deny() -> None:
    explanation = ask(flow("apexless.test"), policy(rule("a", "*.apexless.test"), mode=Mode.AUDIT))
    assert explanation.verdict.would_deny
    assert explanation.near_misses[0].kind is Kind.APEX
    assert explanation.needed


def test_at_most_a_few() -> None:
    rules = [rule(f"r{i}", "a.test", sources=f"10.0.{i}.0/24") for i in range(50)]
    assert len(ask(flow("a.test", src=""), policy(*rules)).near_misses) == MAX_NEAR_MISSES


@given(POLICIES, FLOWS, MOMENTS)
def test_agrees_with_decide(found: Policy, one: Flow, now: float) -> None:
    ruleset = compile_policy(found)
    explanation = explain(found, ruleset, one, now)
    assert explanation.verdict == ruleset.decide(one, now)
    assert (explanation.rule.id if explanation.rule else None) == explanation.verdict.rule_id
    lets_through = explanation.verdict.is_allow and not explanation.verdict.would_deny
    assert bool(explanation.needed) is not lets_through
    for miss in explanation.near_misses:
        assert miss.rule in found.rules


def test_the_better_of_two_near_misses_of_one_rule() -> None:
    found = policy(rule("both", "*.github.com", "gitthub.com"))
    (miss,) = ask(flow("github.com"), found).near_misses
    assert (miss.kind, miss.text) == (Kind.APEX, "*.github.com does not cover the apex github.com")


def test_a_trial_shadows_nothing() -> None:
    found = policy(rule("trial", "a.test", audit=True), rule("plain", "a.test"))
    explanation = ask(flow("a.test"), found)
    assert (explanation.verdict.rule_id, explanation.verdict.would_deny) == ("trial", True)
    assert explanation.near_misses == ()


def test_the_same_letters_are_not_the_same_spelling() -> None:
    assert ask(flow("abcdefghijkl.test"), policy(rule("r", "lkjihgfedcba.test"))).near_misses == ()


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (("Sql",), "20.1.0.0/16 (its service tag: Sql)"),
        (("Sql", "Storage.*"), "20.1.0.0/16 (its service tags: Sql, Storage.*)"),
        (("A", "B", "C", "D", "E"), "20.1.0.0/16 (its service tags: A, B, C and 2 more)"),
    ],
)
def test_a_range_of_a_service_tag_is_named_with_it(tags: tuple[str, ...], expected: str) -> None:
    found = policy(rule("a", "20.1.0.0/16", "20.3.0.0/16", ports="tcp:443", tags=tags))
    asked = flow(None, 443, TCP, dst="20.1.2.3")
    assert ask(asked, found).mentioned_as == expected


def test_every_reason_is_said_in_words() -> None:
    assert all(why(reason) for reason in Reason)

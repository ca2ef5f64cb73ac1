"""Every way out of ``decide``: action, reason, rule, pass, and whether audit let it through."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from egressproxy.policy.compile import compile_policy
from egressproxy.policy.known import known_of
from egressproxy.policy.program import Gate
from egressproxy.policy.rules import Ech, Mode, SniCheck
from egressproxy.policy.verdict import AUDITABLE, Flow, Reason, Verdict
from tests.policy.building import (
    ALLOW,
    DENY,
    HTTP,
    NOON,
    TCP,
    TODAY,
    TOMORROW,
    UDP,
    YESTERDAY,
    flow,
    name_list,
    networks,
    plain_decide,
    policy,
    rule,
)

if TYPE_CHECKING:
    from egressproxy.policy.rules import Policy

AUDIT = Mode.AUDIT
MIDNIGHT = datetime(2026, 6, 16, tzinfo=UTC).timestamp()

WEB = policy(
    rule("no-gists", "gist.github.com", ports="https http", action=DENY),
    rule("github", "github.com", "*.github.com", ports="https http"),
    rule("build", "wheels.example", sources="10.241.4.0/24"),
    rule("old", "old.test", until=YESTERDAY),
    rule("older", "x.two.test", until=YESTERDAY),
    rule("newer", "*.two.test", until=YESTERDAY),
    rule("newest", "y.two.test", until=YESTERDAY),
    rule("last-day", "last.test", until=TODAY),
    rule("old-deny", "mixed.test", action=DENY, until=YESTERDAY),
    rule("mixed", "mixed.test"),
    rule("trial", "trial.test", audit=True),
    rule("trial-over", "over.test", audit=True, audit_until=YESTERDAY),
    rule("soft-deny", "soft.test", audit=True, action=DENY),
    rule("firm-deny", "firm.test", audit=True, audit_until=YESTERDAY, action=DENY),
    rule("old-soft", "oldsoft.test", audit=True, until=YESTERDAY),
    rule("no-ech", "plain.test", ech=Ech.REFUSE),
    rule("front", "front.test", sni=SniCheck.ANY_ALLOWED),
    rule("api", "20.1.2.3", ports="tcp:443"),
    rule("api-old", "20.1.2.4", ports="tcp:443", until=YESTERDAY),
    rule("no-range", "20.9.9.0/24", ports="tcp:443", action=DENY),
    rule("range", "20.9.0.0/16", "2001:db8::/32", ports="tcp:400-500"),
    rule("ssh", "ssh.github.com", ports="tcp:22"),
    rule("ntp", "any", ports="udp:123"),
    rule("quic", "20.7.0.0/16", ports="udp:443"),
    rule("quic-old", "20.8.0.0/16", ports="udp:443", until=YESTERDAY),
    rule("no-quic", "20.6.0.0/16", ports="udp:443", action=DENY),
    rule("list", lists=(name_list("listed.test", "*.many.test", "md-*.blob.test"),)),
)

CASES = {
    "exact": (flow("github.com"), "allow rule github application"),
    "wildcard": (flow("a.b.github.com"), "allow rule github application"),
    "deny first": (flow("gist.github.com"), "deny rule no-gists application"),
    "http": (flow("github.com", 80, HTTP), "allow rule github application"),
    "http name on the tls port": (flow("github.com", 443, HTTP), "deny default_deny - none"),
    "other port": (flow("github.com", 8443), "deny default_deny - none"),
    "nothing": (flow("example.com"), "deny default_deny - none"),
    "not the evil twin": (flow("evilgithub.com"), "deny default_deny - none"),
    "source": (flow("wheels.example", src="10.241.4.9"), "allow rule build application"),
    "other source": (flow("wheels.example"), "deny default_deny - none"),
    "mapped source": (
        flow("wheels.example", src="::ffff:10.241.4.9"),
        "allow rule build application",
    ),
    "no source": (flow("wheels.example", src=""), "deny default_deny - none"),
    "expired": (flow("old.test"), "deny expired_rule old application"),
    "expired twice": (flow("x.two.test"), "deny expired_rule older application"),
    "expired twice, wildcard first": (flow("y.two.test"), "deny expired_rule newer application"),
    "last day": (flow("last.test"), "allow rule last-day application"),
    "expired deny is nothing": (flow("mixed.test"), "allow rule mixed application"),
    "firm deny after its audit": (flow("firm.test"), "deny rule firm-deny application"),
    "a trial that expired counts no more": (
        flow("oldsoft.test"),
        "deny expired_rule old-soft application",
    ),
    "trial allow after its audit": (flow("over.test"), "deny expired_rule trial-over application"),
    "ech is fine": (flow("github.com", ech=True), "allow rule github application"),
    "ech refused by the rule": (
        flow("plain.test", ech=True),
        "deny ech_refused no-ech application",
    ),
    "no ech": (flow("plain.test"), "allow rule no-ech application"),
    "ech of a denied name": (flow("gist.github.com", ech=True), "deny rule no-gists application"),
    "listed": (flow("listed.test"), "allow rule list application"),
    "listed suffix": (flow("x.many.test"), "allow rule list application"),
    "listed suffix is no apex": (flow("many.test"), "deny default_deny - none"),
    "listed prefix": (flow("md-7.z1.blob.test"), "allow rule list application"),
    "tunnel": (flow("github.com", connect="github.com"), "allow rule github application"),
    "tunnel to another": (
        flow("gist.github.com", connect="github.com"),
        "deny host_mismatch github application",
    ),
    "tunnel to another allowed": (
        flow("last.test", connect="github.com"),
        "deny host_mismatch github application",
    ),
    "tunnel relaxed": (flow("github.com", connect="front.test"), "allow rule github application"),
    "tunnel relaxed to a denied": (
        flow("gist.github.com", connect="front.test"),
        "deny rule no-gists application",
    ),
    "tunnel relaxed to nothing": (flow("x.test", connect="front.test"), "deny default_deny - none"),
    "tunnel through a denied": (flow("github.com", connect="x.test"), "deny default_deny - none"),
    "tunnel without sni": (flow(connect="github.com", fault=Reason.NO_SNI), "deny no_sni - none"),
    "no name": (flow(), "deny no_sni - none"),
    "no name in http": (flow(None, 80, HTTP), "deny ambiguous_request - none"),
    "address": (flow(dst="20.1.2.3", fault=Reason.NO_SNI), "allow rule api network"),
    "address and name": (flow("example.com", dst="20.1.2.3"), "allow rule api network"),
    "address before a denied name": (
        flow("gist.github.com", dst="20.1.2.3"),
        "allow rule api network",
    ),
    "other address": (flow(dst="20.1.2.5", fault=Reason.NO_SNI), "deny no_sni - none"),
    "address expired": (
        flow(dst="20.1.2.4", fault=Reason.NO_SNI),
        "deny expired_rule api-old network",
    ),
    "address expired, name allowed": (
        flow("github.com", dst="20.1.2.4"),
        "allow rule github application",
    ),
    "address expired, name denied": (
        flow("gist.github.com", dst="20.1.2.4"),
        "deny rule no-gists application",
    ),
    "range denied": (flow("github.com", dst="20.9.9.1"), "deny rule no-range network"),
    "range": (flow(None, 450, TCP, dst="20.9.8.1"), "allow rule range network"),
    "range v6": (flow(None, 450, TCP, dst="2001:db8::9"), "allow rule range network"),
    "range ports end": (flow(None, 501, TCP, dst="20.9.8.1"), "deny default_deny - none"),
    "mapped address": (flow(None, 443, TCP, dst="::ffff:20.1.2.3"), "allow rule api network"),
    "connect by name on tcp": (flow("ssh.github.com", 22, TCP), "allow rule ssh network"),
    "sni is no name for tcp": (flow("ssh.github.com", 22), "deny default_deny - none"),
    "connect name is one for tcp": (
        flow("x.test", 22, connect="ssh.github.com"),
        "allow rule ssh network",
    ),
    "udp anywhere": (flow(None, 123, UDP, dst="192.0.2.1"), "allow rule ntp network"),
    "udp without an address": (flow(None, 123, UDP), "allow rule ntp network"),
    "udp is not tcp": (flow(None, 123, TCP, dst="192.0.2.1"), "deny default_deny - none"),
    "quic": (flow(None, 443, UDP, dst="192.0.2.1"), "deny quic_refused - none"),
    "quic to an allowed name": (flow("github.com", 443, UDP), "deny quic_refused - none"),
    "quic allowed by address": (flow(None, 443, UDP, dst="20.7.0.1"), "allow rule quic network"),
    "quic denied by address": (flow(None, 443, UDP, dst="20.6.0.1"), "deny rule no-quic network"),
    "quic by an expired rule": (flow(None, 443, UDP, dst="20.8.0.1"), "deny quic_refused - none"),
    "quic elsewhere is any udp": (
        flow(None, 8443, UDP, dst="192.0.2.1"),
        "deny default_deny - none",
    ),
    "what is no source address": (flow("github.com", src="bogus"), "deny default_deny - none"),
}


@pytest.mark.parametrize(("one", "outcome"), CASES.values(), ids=CASES)
def test_exits(one: Flow, outcome: str) -> None:
    ruleset = compile_policy(WEB)
    for verdict in (ruleset.decide(one, NOON), ruleset.decide(one, NOON)):
        rule_id = verdict.rule.id if verdict.rule else None
        assert rule_id == verdict.rule_id
        assert f"{verdict.action} {verdict.reason} {rule_id or '-'} {verdict.decided_by}" == outcome
        assert not verdict.would_deny
        if one.src != "bogus":  # the plain judge knows addresses only
            assert verdict == plain_decide(WEB, one, NOON)


SOFTENED = {
    "trial allow": (flow("trial.test"), Reason.RULE, "trial"),
    "soft deny": (flow("soft.test"), Reason.RULE, "soft-deny"),
}


@pytest.mark.parametrize(("one", "reason", "rule_id"), SOFTENED.values(), ids=SOFTENED)
def test_audit_of_a_rule(one: Flow, reason: Reason, rule_id: str) -> None:
    verdict = compile_policy(WEB).decide(one, NOON)
    assert (verdict.action, verdict.reason, verdict.rule_id) == (ALLOW, reason, rule_id)
    assert verdict.would_deny


@pytest.mark.parametrize("fault", Reason)
@pytest.mark.parametrize("mode", Mode)
def test_faults(fault: Reason, mode: Mode) -> None:
    ruleset = compile_policy(policy(rule("all", "any", ports="tcp:1-65535"), mode=mode))
    by_address = ruleset.decide(flow(dst="192.0.2.1", fault=fault), NOON)
    by_name = ruleset.decide_application(flow(fault=fault), NOON)
    assert by_name.reason is fault
    if fault in AUDITABLE:
        assert (by_address.action, by_address.rule_id) == (ALLOW, "all")
        assert by_name.is_allow is by_name.would_deny is (mode is AUDIT)
    else:
        assert (by_address.action, by_address.reason) == (DENY, fault)
        assert (by_name.action, by_name.would_deny) == (DENY, False)
        assert ruleset.decide_network(flow(fault=fault), NOON) == by_address


AUDITED = {
    "default deny": (flow("example.com"), ALLOW, Reason.DEFAULT_DENY),
    "deny rule": (flow("gist.github.com"), ALLOW, Reason.RULE),
    "expired": (flow("old.test"), ALLOW, Reason.EXPIRED_RULE),
    "no sni": (flow(fault=Reason.NO_SNI), ALLOW, Reason.NO_SNI),
    "address rule": (flow(None, 443, TCP, dst="20.9.9.1"), ALLOW, Reason.RULE),
    "ech": (flow("plain.test", ech=True), DENY, Reason.ECH_REFUSED),
    "mismatch": (flow("x.test", connect="github.com"), DENY, Reason.HOST_MISMATCH),
    "mismatch of an unknown tunnel": (flow("x.test", connect="y.test"), DENY, Reason.HOST_MISMATCH),
    "malformed": (flow(fault=Reason.MALFORMED_HELLO), DENY, Reason.MALFORMED_HELLO),
    "quic": (flow(None, 443, UDP, dst="192.0.2.1"), DENY, Reason.QUIC_REFUSED),
    "quic by an expired rule": (flow(None, 443, UDP, dst="20.8.0.1"), DENY, Reason.QUIC_REFUSED),
    "quic denied by a rule": (flow(None, 443, UDP, dst="20.6.0.1"), ALLOW, Reason.RULE),
    "other udp": (flow(None, 8443, UDP, dst="192.0.2.1"), ALLOW, Reason.DEFAULT_DENY),
    "forbidden address": (flow(fault=Reason.FORBIDDEN_ADDRESS), DENY, Reason.FORBIDDEN_ADDRESS),
}


@pytest.mark.parametrize(("one", "action", "reason"), AUDITED.values(), ids=AUDITED)
def test_audit_of_the_policy(one: Flow, action: object, reason: Reason) -> None:
    audited = replace(WEB, mode=AUDIT, audit_until=TODAY)
    verdict = compile_policy(audited).decide(one, NOON)
    assert (verdict.action, verdict.reason) == (action, reason)
    assert verdict.would_deny is (action is ALLOW)
    later = compile_policy(replace(audited, audit_until=YESTERDAY)).decide(one, NOON)
    assert (later.action, later.would_deny) == (DENY, False)


def test_ech_refused_by_the_policy() -> None:
    ruleset = compile_policy(policy(rule("a", "a.test"), ech=Ech.REFUSE))
    assert ruleset.decide(flow("a.test"), NOON).is_allow
    verdict = ruleset.decide(flow("a.test", ech=True), NOON)
    assert (verdict.action, verdict.reason, verdict.rule_id) == (DENY, Reason.ECH_REFUSED, "a")
    audited = compile_policy(policy(ech=Ech.REFUSE, mode=AUDIT))
    verdict = audited.decide(flow("a.test", ech=True), NOON)
    assert (verdict.action, verdict.reason, verdict.rule_id) == (DENY, Reason.ECH_REFUSED, None)


WARNING = policy(
    rule("a", "a.test"),
    rule("tunnel", "tunnel.test", sni=SniCheck.ANY_ALLOWED),
    rule("no", "no.test", action=DENY),
    rule("over", "over.test", until=YESTERDAY),
    rule("gone", "20.9.0.1", ports="tcp:443", until=YESTERDAY),
    rule("plain-http", "web.test", ports="http"),
    mode=Mode.WARN_ON_NEW,
    warn_until=TODAY,
    ech=Ech.REFUSE,
)
KNOWN = known_of(["known.test", "k.known.test"], ["10.0.0.9", "10.9.0.0"])
NEW = "allow new_name - none audit"
UNKNOWN = "deny default_deny - none"
WARNED = {
    "a new name": (flow("new.test"), NEW),
    "a new name over http": (flow("new.test", 80, HTTP), NEW),
    "a new name on another port": (flow("a.test", 8443), NEW),
    "a new name in a tunnel of its name": (flow("new.test", connect="new.test"), NEW),
    "a new name in an allowed tunnel for any": (flow("new.test", connect="tunnel.test"), NEW),
    "a known name": (flow("known.test"), UNKNOWN),
    "a known name below": (flow("k.known.test"), UNKNOWN),
    "a new name below a known one": (flow("x.known.test"), NEW),
    "a crowded client": (flow("new.test", src="10.0.0.9"), UNKNOWN),
    "a client of a crowded network": (flow("new.test", src="10.9.3.4"), UNKNOWN),
    "another client": (flow("new.test", src="10.0.0.8"), NEW),
    "an allowed name": (flow("a.test"), "allow rule a application"),
    "a denied name": (flow("no.test"), "deny rule no application"),
    "a name whose rule is over": (flow("over.test"), "deny expired_rule over application"),
    "an address whose rule is over": (
        flow("new.test", dst="20.9.0.1"),
        "deny expired_rule gone network",
    ),
    "no name": (flow(None, fault=Reason.NO_SNI), "deny no_sni - none"),
    "an address": (flow(None, fault=Reason.IP_LITERAL), "deny ip_literal - none"),
    "neither": (flow(None, fault=Reason.NOT_TLS_OR_HTTP), "deny not_tls_or_http - none"),
    "broken": (flow(None, fault=Reason.MALFORMED_HELLO), "deny malformed_hello - none"),
    "another name in a new tunnel": (
        flow("new.test", connect="new2.test"),
        "deny host_mismatch - application",
    ),
    "hidden": (flow("new.test", ech=True), "deny ech_refused - application"),
    "by address": (flow(None, 22, TCP, dst="192.0.2.1"), UNKNOWN),
    "by address with a name": (flow("new.test", 22, TCP), UNKNOWN),
    "quic": (flow("new.test", 443, UDP), "deny quic_refused - none"),
}


def told(verdict: Verdict) -> str:
    softened = " audit" if verdict.would_deny else ""
    rule_id = verdict.rule_id or "-"
    return f"{verdict.action} {verdict.reason} {rule_id} {verdict.decided_by}{softened}"


@pytest.mark.parametrize("case", WARNED)
def test_warn_on_new(case: str) -> None:
    one, expected = WARNED[case]
    warning = compile_policy(WARNING)
    assert told(warning.with_known(KNOWN).decide(one, NOON)) == expected
    # Without a word on what is known, and once it is over, all of it is enforced.
    enforced = compile_policy(replace(WARNING, mode=Mode.ENFORCE))
    as_enforced = told(enforced.decide(one, NOON))
    assert told(warning.decide(one, NOON)) == as_enforced
    assert told(warning.with_known(KNOWN).decide(one, NOON + 86400)) == as_enforced
    assert told(enforced.with_known(KNOWN).decide(one, NOON)) == as_enforced
    if expected != NEW:
        assert expected.partition(" ")[0] == as_enforced.partition(" ")[0]


def test_the_end_of_warn_on_new_is_a_date_of_the_policy() -> None:
    assert compile_policy(WARNING).next_expiry(NOON) == MIDNIGHT


@pytest.mark.parametrize(
    ("found", "before", "after"),
    [
        pytest.param(policy(rule("a", "a.test", until=TODAY)), ALLOW, DENY, id="until"),
        pytest.param(policy(rule("a", "a.test", until=TOMORROW)), ALLOW, ALLOW, id="not yet"),
        pytest.param(policy(mode=AUDIT, audit_until=TODAY), ALLOW, DENY, id="audit"),
        pytest.param(policy(mode=AUDIT), ALLOW, ALLOW, id="audit without end"),
        pytest.param(
            policy(rule("a", "a.test", action=DENY, audit=True, audit_until=TODAY)),
            ALLOW,
            DENY,
            id="audited deny",
        ),
        pytest.param(
            policy(rule("d", "a.test", action=DENY, until=TODAY), rule("a", "a.test")),
            DENY,
            ALLOW,
            id="expiring deny",
        ),
    ],
)
def test_days_are_whole_in_utc(found: Policy, before: object, after: object) -> None:
    ruleset = compile_policy(found)
    assert ruleset.decide(flow("a.test"), MIDNIGHT - 0.001).action is before
    assert ruleset.decide(flow("a.test"), MIDNIGHT).action is after
    assert ruleset.decide(flow("a.test"), MIDNIGHT - 1).action is before
    if before is not after:
        assert ruleset.next_expiry(NOON) == MIDNIGHT
    assert ruleset.next_expiry(MIDNIGHT + 2 * 86400) is None


def test_one_verdict_object_a_rule() -> None:
    ruleset = compile_policy(WEB)
    one = ruleset.decide(flow("a.github.com"), NOON)
    assert ruleset.decide(flow("b.github.com"), NOON) is one
    assert ruleset.decide(flow("github.com", 80, HTTP), NOON) is one


def test_passes_alone() -> None:
    ruleset = compile_policy(WEB)
    assert ruleset.decide_network(flow("github.com"), NOON) is None
    assert ruleset.decide_network(flow(dst="20.1.2.4"), NOON) is None, "expired is no match"
    allowed = ruleset.decide_network(flow(dst="20.1.2.3"), NOON)
    assert allowed is not None
    assert allowed.rule_id == "api"
    assert ruleset.decide_application(flow("x.test", dst="20.1.2.3"), NOON).reason is (
        Reason.DEFAULT_DENY
    )
    assert ruleset.decide_name(flow("x.test", dst="20.1.2.3"), NOON).reason is Reason.DEFAULT_DENY
    assert ruleset.decide_name(flow("a.github.com", dst="20.1.2.3"), NOON).is_allow


def test_ten_thousand_rules_for_one_name_are_scanned_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules = [
        rule(f"r{i}", "*.a.test", sources=f"10.{i >> 8}.{i & 255}.0/24") for i in range(10_000)
    ]
    ruleset = compile_policy(policy(*rules))
    assert ruleset.decide(flow("x.a.test", src="10.39.15.1"), NOON).rule_id == "r9999"
    monkeypatch.setattr(Gate, "admits", lambda *_: pytest.fail("scanned again"))
    for i in range(100):
        assert ruleset.decide(flow(f"x{i}.a.test", src="10.39.15.7"), NOON).rule_id == "r9999"


def test_memos_are_bounded() -> None:
    ruleset = compile_policy(
        policy(rule("a", "*.a.test"), rule("b", "10.0.0.0/8", ports="tcp:443"))
    )
    for i in range(60_000):
        dst = f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}"
        ruleset.decide(flow(f"x{i}.a.test", src=dst), NOON)
        ruleset.decide(flow(None, dst=dst), NOON)
    window = ruleset._window
    for memo in (window.flows, window.sources, window._names, window._networks):
        assert len(memo) <= 3 * 8192


def test_source_groups() -> None:
    groups = (("a", networks("10.0.0.0/16")), ("b", networks("10.0.0.0/8", "2001:db8::/32")))
    ruleset = compile_policy(policy(sources=groups))
    table = {"10.0.3.4": "a", "10.1.0.1": "b", "2001:db8::1": "b", "192.0.2.1": None, "bad": None}
    assert {src: ruleset.source_group(src) for src in table} == table

"""Network rules that leave nothing to application rules, and that it is so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.policy import lint_dead
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.lint_dead import _Killer, dead_findings
from egressproxy.policy.lint_survey import Survey
from tests.policy.building import DENY, NOON, TODAY, YESTERDAY, policy, rule
from tests.policy.linting import texts, told
from tests.policy.test_lint_order import CROWDED, FLOWS

if TYPE_CHECKING:
    from egressproxy.policy.rules import Policy, Rule

ANY = rule("n", "any", ports="tcp:443")
WEB = rule("w", "x.test")
DEAD = {
    "any": (ANY, WEB),
    "by network": (rule("n", "0.0.0.0/0", ports="tcp:443"), WEB),
    "in halves": (rule("n", "0.0.0.0/1", "128.0.0.0/1", ports="tcp:443"), WEB),
    "behind it": (WEB, ANY),
    "denied": (rule("n", "0.0.0.0/0", ports="tcp:443", action=DENY), WEB),
    "a span": (rule("n", "any", ports="tcp:1-65535"), WEB),
    "http": (rule("n", "any", ports="tcp:80"), rule("w", "x.test", ports="http")),
    "one port of two": (ANY, rule("w", "x.test", ports="https http")),
    "a deny rule": (ANY, rule("w", "x.test", action=DENY)),
    "for its clients": (
        rule("n", "any", ports="tcp:443", sources="10.0.0.0/8"),
        rule("w", "x.test", sources="10.1.0.0/16"),
    ),
    "for some of its clients": (
        rule("n", "any", ports="tcp:443", sources="10.1.0.0/16"),
        rule("w", "x.test", sources="10.1.0.0/16 10.2.0.0/16"),
    ),
    "for some of all clients": (rule("n", "any", ports="tcp:443", sources="10.1.0.0/16"), WEB),
    "denied for its clients": (
        rule("n", "any", ports="tcp:443", sources="10.0.0.0/8", action=DENY),
        rule("w", "x.test", sources="10.1.0.0/16"),
    ),
    "for a while": (rule("n", "any", ports="tcp:443", until=TODAY), WEB),
}


@pytest.mark.parametrize("found", DEAD.values(), ids=DEAD)
def test_dead(found: tuple[Rule, ...]) -> None:
    assert told(dead_findings, *found) == {("dead-names", "n")}


ALIVE = {
    "no names": (ANY, rule("m", "20.1.2.3", ports="tcp:443")),
    "other port": (rule("n", "any", ports="tcp:22 tcp:9000"), WEB),
    "udp": (rule("n", "any", ports="udp:443"), WEB),
    "some addresses": (rule("n", "20.0.0.0/8", "128.0.0.0/1", ports="tcp:443"), WEB),
    "names": (rule("n", "x.test", ports="tcp:443"), WEB),
    "other clients": (
        rule("n", "any", ports="tcp:443", sources="10.1.0.0/16"),
        rule("w", "x.test", sources="10.2.0.0/16"),
    ),
    "some are denied everything": (
        rule("n", "any", ports="tcp:443", sources="10.1.0.0/16", action=DENY),
        WEB,
    ),
    "some of its clients are denied everything": (
        rule("n", "any", ports="tcp:443", sources="10.1.0.0/16", action=DENY),
        rule("w", "x.test", sources="10.1.0.0/16 10.2.0.0/16"),
    ),
    "expired": (rule("n", "any", ports="tcp:443", until=YESTERDAY), WEB),
    "only an expired rule": (ANY, rule("w", "x.test", until=YESTERDAY)),
    "for nobody": (rule("n", "any", ports="tcp:443", sources=()), WEB),
}


@pytest.mark.parametrize("found", ALIVE.values(), ids=ALIVE)
def test_alive(found: tuple[Rule, ...]) -> None:
    assert told(dead_findings, *found) == set()


def test_what_is_dead_is_named() -> None:
    web = [rule(f"w{i}", f"x{i}.test") for i in range(6)]
    (text,) = texts(dead_findings, rule("n", "any", ports="tcp:443 udp:53"), *web)
    assert text.startswith(
        "it allows tcp:443 to any address before a name is asked: w0, w1, w2 and 3 more never"
    )
    assert "allow names with https" in text
    assert "for its clients" not in text
    (text,) = texts(dead_findings, rule("n", "any", ports="tcp:443", sources="10.1.0.0/16"), web[0])
    assert ": w0 never counts there for its clients -> " in text
    (text,) = texts(dead_findings, rule("n", "any", ports="tcp:443", action=DENY), web[0])
    assert "it denies tcp:443 to any address before a name is asked: w0 never counts" in text
    assert text.endswith("-> remove it: what no rule allows is denied")


def test_rules_of_one_kind_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    original = lint_dead._kills

    def counted(killer: _Killer, other: Rule) -> bool:
        asked.append(other.id)
        return original(killer, other)

    monkeypatch.setattr(lint_dead, "_kills", counted)
    some = [rule(f"n{i}", "any", ports=f"tcp:{i + 1}-443") for i in range(100)]
    web = [rule(f"w{i}", f"x{i}.test") for i in range(500)]
    assert len(told(dead_findings, *some, *web)) == lint_dead.MAX_KILLERS
    assert len(asked) <= lint_dead.MAX_KILLERS * 101


@given(CROWDED, st.sampled_from(["any", "0.0.0.0/0"]), st.sampled_from(["tcp:443", "tcp:80-443"]))
def test_a_rule_that_is_dead_everywhere_never_decides(found: Policy, to: str, ports: str) -> None:
    """With the network rule in place, the names of rules that it kills change nothing."""
    found = policy(rule("killer", to, ports=ports), *found.rules)
    killed = {
        each.id
        for each in found.rules
        if each.id != "killer"
        and told(dead_findings, found.rules[0], each) == {("dead-names", "killer")}
        and all(span.protocol == "tls" and span.first == 443 for span in each.ports)
    }
    assert (not killed) or any(
        finding.rule_id == "killer" for finding in dead_findings(Survey.of(found, NOON))
    )
    before = compile_policy(found)
    after = compile_policy(policy(*(each for each in found.rules if each.id not in killed)))
    for one in FLOWS:
        if one.dst is not None and ":" not in one.dst:
            assert before.decide(one, NOON) == after.decide(one, NOON)

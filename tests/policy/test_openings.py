"""What a policy opens by name: every exact name once, a sample below each wildcard."""

from __future__ import annotations

from typing import Any

import pytest

from egressproxy.policy import openings as module
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.openings import openings
from egressproxy.policy.rules import Mode
from tests.policy.building import DENY, NOON, YESTERDAY, name_list, policy, rule


def found(*rules: Any, **more: Any) -> list[str]:
    whole = policy(*rules, **more)
    return [
        f"{name} {protocol}:{port}" + (" sample" if is_sample else "")
        for name, protocol, port, _, is_sample in openings(whole, compile_policy(whole), NOON)
    ]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((rule("a", "a.test", ports="https http"),), ["a.test tls:443", "a.test http:80"]),
        ((rule("a", "a.test"), rule("b", "a.test")), ["a.test tls:443"]),
        ((rule("a", "*.a.test", "md-*.b.test"),), ["sample.a.test tls:443 sample",
                                                   "md-sample.b.test tls:443 sample"]),
        ((rule("a", "a.test", ports="tcp:5671-5672 udp:123"),), ["a.test tcp:5671",
                                                                "a.test udp:123"]),
        ((rule("a", "10.0.0.0/8", ports="tcp:1433"), rule("b", "any", ports="udp:53")), []),
        ((rule("a", lists=(name_list("l.test"),)),), []),
        ((rule("a", "a.test", sources="10.1.0.0/16"),), ["a.test tls:443"]),
        ((rule("a", "a.test", sources=()),), []),
        ((rule("d", "a.test", action=DENY), rule("a", "a.test")), []),
        ((rule("d", "a.test", action=DENY, sources="10.2.0.0/16"), rule("a", "a.test")),
         ["a.test tls:443"]),
        ((rule("a", "a.test", until=YESTERDAY),), []),
        ((rule("d", "a.test", action=DENY, audit=True), rule("a", "a.test")), []),
    ],
    ids=["ports", "once", "wildcards", "network-ports", "addresses", "lists", "sources", "nobody",
         "denied", "denied-to-others", "expired", "audited"],
)  # fmt: skip
def test_openings(rules: tuple[Any, ...], expected: list[str]) -> None:
    assert found(*rules) == expected


def test_audit_opens_nothing() -> None:
    assert found(rule("a", "a.test"), mode=Mode.AUDIT) == ["a.test tls:443"]


def test_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPENINGS", 3)
    assert len(found(rule("a", *(f"n{number}.test" for number in range(9))))) == 3

"""What an attempt means: every step has its level, its why, and its fix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from egressproxy.names import DnsName
from egressproxy.policy.openings import Opening
from egressproxy.ports import Protocol
from egressproxy.probe.attempt import Attempt, Step
from egressproxy.probe.judgement import judged
from tests.policy.building import NOON, rule

FAR = {"address": "20.1.2.3", "addresses": ("20.1.2.3",)}
UNTRUSTED: dict[str, Any] = {
    "step": Step.CERTIFICATE,
    "error": "self-signed certificate",
    "verify_code": 19,
}


def made(rule_id: str = "r", protocol: Protocol = Protocol.TLS, **facts: Any) -> Attempt:
    one = Opening(DnsName("a.test"), protocol, 443, rule(rule_id, "a.test"), False)
    return Attempt(opening=one, **{**FAR, **facts})


@pytest.mark.parametrize(
    ("attempt", "level", "sample_level", "fix"),
    [
        (made(step=Step.DONE, tls_version="TLSv1.3"), "ok", "ok", ""),
        (made(step=Step.DONE, not_after="Jun 20 12:00:00 2026 GMT"), "warn", "warn", "tell"),
        (made(step=Step.DONE, not_after="Jun 20 12:00:00 2027 GMT"), "ok", "ok", ""),
        (made(step=Step.DONE, not_after="some day"), "ok", "ok", ""),
        (made(step=Step.WAIT), "fail", "warn", "--deadline-s"),
        (made(step=Step.RESOLVE, error="nxdomain"), "fail", "ok", "dig a.test"),
        (made(step=Step.RESOLVE, error="servfail"), "fail", "warn", "dig a.test"),
        (made(step=Step.GUARD), "fail", "warn", "addresses: [20.1.2.3]"),
        (made(step=Step.CONNECT, error="timeout"), "fail", "warn", "nc -vz 20.1.2.3 443"),
        (made(step=Step.TLS, error="connection reset"), "fail", "warn", "curl -vI https://a.test"),
        (made(step=Step.HTTP, error="timeout"), "fail", "warn", "curl -vI http://a.test:443/"),
        (made(**UNTRUSTED), "fail", "warn", "--ca-file"),
        (made("aks/core#api-server", **UNTRUSTED), "warn", "warn", "--ca-file"),
        (made(**{**UNTRUSTED, "verify_code": 10}), "fail", "warn", "date"),
        (made("x#api-server", **{**UNTRUSTED, "verify_code": 62}), "fail", "warn", "date"),
    ],
    ids=["done", "ends-soon", "ends-later", "ends-some-day", "wait", "nxdomain", "servfail",
         "guard", "connect", "tls", "http", "untrusted", "api-server", "expired", "other-name"],
)  # fmt: skip
def test_levels(attempt: Attempt, level: str, sample_level: str, fix: str) -> None:
    found = judged(attempt, NOON)
    assert found.level == level
    assert found.check == "a.test tls:443"
    assert found.fix.startswith(fix)
    assert (found.level == "ok") == (not found.why) == (not found.fix)
    below = replace(attempt, opening=attempt.opening._replace(is_sample=True))
    sample = judged(below, NOON)
    assert (sample.level, sample.check) == (sample_level, "a.test tls:443 (sample)")


def test_what_is_seen() -> None:
    facts: dict[str, Any] = {
        "tls_version": "TLSv1.3",
        "alpn": "h2",
        "issuer": "Microsoft",
        "seconds": 0.0421,
    }
    assert judged(made(step=Step.DONE, **facts), NOON).seen == (
        "20.1.2.3, TLSv1.3, h2, by Microsoft, 42 ms"
    )
    udp = judged(made(protocol=Protocol.UDP, step=Step.DONE), NOON)
    assert udp.seen == "resolves, 20.1.2.3; UDP gives no sign, nothing was sent"

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from egressproxy.policy.lint import Code, Severity, lint
from egressproxy.policy.rules import Mode
from tests.policy.building import DENY, NOON, TODAY, YESTERDAY, policy, rule

if TYPE_CHECKING:
    from egressproxy.policy.rules import Rule

BY_ADDRESS, TENANT, APEX = Code.BY_ADDRESS, Code.MULTI_TENANT, Code.MISSING_APEX

CASES = {
    "any": (rule("a", "any", ports="tcp:9000"), {BY_ADDRESS}),
    "wide range": (rule("a", "20.9.0.0/16", ports="tcp:1433"), {BY_ADDRESS}),
    "wide range v6": (rule("a", "2603:1000::/40", ports="tcp:443"), {BY_ADDRESS}),
    "one address": (rule("a", "20.9.0.1", ports="tcp:443"), set()),
    "small range": (rule("a", "20.9.0.0/24", ports="tcp:443"), set()),
    "private range": (rule("a", "10.0.0.0/8", ports="udp:53"), set()),
    "tag": (rule("a", "20.9.0.1", ports="tcp:443", tags=("Sql",)), {BY_ADDRESS}),
    "tunnel to one address": (
        rule("a", "20.9.0.1", ports="udp:1194", requirement="aks/tunnel"),
        {BY_ADDRESS},
    ),
    "denied range": (rule("a", "any", ports="tcp:1-65535", action=DENY), set()),
    "blob": (rule("a", "*.blob.core.windows.net", "blob.core.windows.net"), {TENANT}),
    "blob prefix": (rule("a", "umsa*.blob.core.windows.net"), {TENANT}),
    "sites": (rule("a", "*.azurewebsites.net"), {TENANT}),
    "pages": (rule("a", "*.github.io"), {TENANT}),
    "one account": (rule("a", "mine.blob.core.windows.net"), set()),
    "no apex": (rule("a", "*.example.com"), {APEX}),
    "with apex": (rule("a", "*.example.com", "example.com"), set()),
    "catalog without apex": (rule("a", "*.data.example.com", requirement="aks/core"), set()),
    "prefix needs no apex": (rule("a", "md-*.example.com"), set()),
    "api servers": (
        rule("a", "*.hcp.japaneast.azmk8s.io", requirement="aks/core"),
        {Code.ALL_API_SERVERS},
    ),
    "api servers of china": (
        rule("a", "*.hcp.chinaeast2.cx.prod.service.azk8s.cn"),
        {Code.ALL_API_SERVERS},
    ),
    "api servers of us government": (
        rule("a", "*.hcp.usgovvirginia.cx.aks.containerservice.azure.us"),
        {Code.ALL_API_SERVERS},
    ),
    "own api server": (rule("a", "x.hcp.japaneast.azmk8s.io"), set()),
    "expired": (rule("a", "a.test", until=YESTERDAY), {Code.EXPIRED}),
    "expired deny": (rule("a", "a.test", until=YESTERDAY, action=DENY), {Code.EXPIRED}),
    "last day": (rule("a", "a.test", until=TODAY), set()),
    "audit over": (rule("a", "a.test", audit=True, audit_until=YESTERDAY), {Code.AUDIT_OVER}),
    "audit": (rule("a", "a.test", audit=True, audit_until=TODAY), set()),
    "acr with blob": (
        rule("a", "*.blob.core.windows.net", requirement="acr"),
        {TENANT, Code.DEDICATED_SWITCH},
    ),
    "acr dedicated": (rule("a", "r.eastus.data.azurecr.io", requirement="acr"), set()),
}


@pytest.mark.parametrize(("one", "codes"), CASES.values(), ids=CASES)
def test_findings(one: Rule, codes: set[Code]) -> None:
    findings = lint(policy(one), now=NOON)
    assert {finding.code for finding in findings} == codes
    for finding in findings:
        assert (finding.rule_id, str(finding.origin)) == ("a", "policy.yaml:7")
        assert str(finding).startswith(f"policy.yaml:7: {finding.severity}: a: ")
        assert "hint: " in str(finding)


def test_apex_in_another_rule() -> None:
    assert lint(policy(rule("a", "*.a.test"), rule("b", "a.test")), now=NOON) == ()


def test_the_policys_own_audit() -> None:
    audited = policy(mode=Mode.AUDIT, audit_until=YESTERDAY)
    (finding,) = lint(audited, now=NOON)
    assert (finding.code, finding.severity) == (Code.AUDIT_OVER, Severity.WARNING)
    assert str(finding).startswith("warning: audit ended on 2026-06-14")
    assert lint(replace(audited, audit_until=TODAY), now=NOON) == ()

"""Rule ids in Azure Firewall's three levels."""

from __future__ import annotations

import pytest

from egressproxy.export.rule_path import RulePath, rule_path

CASES = {
    "no rule": (None, RulePath("", "", "")),
    "a requirement's row": ("aks/core#mcr", RulePath("requirements", "aks/core", "mcr")),
    "a row for one parameter": ("acr#login@2", RulePath("requirements", "acr", "login@2")),
    "a rule": ("rules/github", RulePath("policy", "rules", "github")),
    "of an included file": ("team-a.yaml/rules/x", RulePath("team-a.yaml", "rules", "x")),
    "included twice": ("b/t.yaml@2/rules/my rule", RulePath("b/t.yaml@2", "rules", "my rule")),
}


@pytest.mark.parametrize(("rule_id", "expected"), CASES.values(), ids=CASES)
def test_rule_path(rule_id: str | None, expected: RulePath) -> None:
    assert rule_path(rule_id) == expected

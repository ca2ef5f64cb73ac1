from __future__ import annotations

from egressproxy.policy.lint_sources import source_findings
from tests.policy.building import networks, rule
from tests.policy.linting import told

GROUPS = (("build", networks("10.1.0.0/16")), ("spare", networks("10.2.0.0/16")))


def test_groups_that_no_rule_names() -> None:
    used = rule("a", "a.test", sources="10.1.0.0/16", source_groups=("build",))
    assert told(source_findings, used, sources=GROUPS) == {("unused-group", "")}
    assert told(source_findings, used, sources=GROUPS[:1]) == set()
    assert told(source_findings, rule("a", "a.test"), sources=GROUPS[:1]) == {("unused-group", "")}


def test_rules_for_nobody() -> None:
    assert told(source_findings, rule("a", "a.test", sources=())) == {("nobody", "a")}
    assert told(source_findings, rule("a", "a.test", sources="10.0.0.0/8")) == set()

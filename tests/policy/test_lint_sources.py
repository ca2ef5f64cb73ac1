from __future__ import annotations

import pytest

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


PUBLIC = {
    "private": ("10.0.0.0/8 172.16.1.0/24 192.168.0.1/32 100.64.0.0/10 fd00::/8", set()),
    "everyone": ("0.0.0.0/0 ::/0", set()),
    "wider than private": ("0.0.0.0/1 128.0.0.0/1", set()),
    "public": ("20.0.0.0/24", {("public-source", "a")}),
    "public IPv6": ("2603:1000::/40", {("public-source", "a")}),
    "beside private": ("10.0.0.0/8 11.0.0.0/8", {("public-source", "a")}),
}


@pytest.mark.parametrize(("sources", "expected"), PUBLIC.values(), ids=PUBLIC)
def test_clients_that_are_not_served(sources: str, expected: set[tuple[str, str]]) -> None:
    assert told(source_findings, rule("a", "a.test", sources=sources)) == expected


def test_a_public_range_is_told_once() -> None:
    rules = [rule(name, "a.test", sources="20.0.0.0/24") for name in ("a", "b")]
    assert told(source_findings, *rules) == {("public-source", "a")}

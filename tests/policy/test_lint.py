"""The lint as a whole: order, acceptance, the ready policies, the catalog, and its cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from egressproxy.catalog import CLOUDS, expand, load_catalog
from egressproxy.policy.lint import Code, Severity, lint
from egressproxy.policy.load import load_policy
from egressproxy.policy.rules import Mode
from tests.policy.building import DENY, NOON, YESTERDAY, name_list, networks, policy, rule

if TYPE_CHECKING:
    from egressproxy.catalog import Requirement
    from egressproxy.policy.rules import Rule
    from tests.policy.conftest import Finder, Loader

READY = sorted((Path(__file__).parents[2] / "policies").glob("*.yaml"))


def test_of_the_policy_first_then_rule_by_rule() -> None:
    found = lint(
        policy(
            rule("a", "*.github.io", until=YESTERDAY),
            rule("b", "*.github.io", "x.github.io"),
            rule("c", "x.github.io", action=DENY),
            rule("d", "any", ports="tcp:443"),
            mode=Mode.AUDIT,
            audit_until=YESTERDAY,
            sources=(("spare", networks("10.1.0.0/16")),),
        ),
        now=NOON,
    )
    assert [(finding.rule_id, str(finding.code)) for finding in found] == [
        (None, "audit-over"),
        (None, "unused-group"),
        ("a", "expired"),
        ("b", "multi-tenant"),
        ("c", "shadowed"),
        ("d", "dead-names"),
        ("d", "by-address"),
    ]


def test_nothing_to_find() -> None:
    assert lint(policy(rule("a", "a.test"), rule("b", "b.test", action=DENY))) == ()


ACCEPTING = """\
accept: [missing-apex]
parameters: {api_server_ips: [20.1.2.3]}
requirements: [aks/tunnel: {via: api-server, accept: [by-address, old-tunnel]}]
rules:
  - {name: wild, to: ["*.example.com"], ports: [https]}
  - {name: sites, to: ["*.azurewebsites.net"], ports: [https], accept: [multi-tenant]}
"""


def test_what_a_document_accepts(load: Loader) -> None:
    found = lint(load(ACCEPTING))
    assert {finding.code for finding in found} == {
        Code.MISSING_APEX,
        Code.MULTI_TENANT,
        Code.BY_ADDRESS,
        Code.OLD_TUNNEL,
    }
    assert all(finding.accepted for finding in found)
    bare = load(ACCEPTING.replace(", accept: [multi-tenant]", ""))
    assert bare.digest == load(ACCEPTING).digest, "what is accepted changes no verdict"
    assert [finding.rule_id for finding in lint(bare) if finding.fails] == ["rules/sites"]


def test_what_cannot_be_accepted(problems: Finder) -> None:
    text = "rules: [{to: [a.test], ports: [https], accept: [multi-tenent]}]\naccept: []\n"
    assert problems(text) == [
        "policy.yaml:3:49: multi-tenent is not a finding of the lint, hint: did you mean"
        " multi-tenant?",
        "policy.yaml:4:9: an empty list, hint: list at least one of findings, or remove the key",
    ]


@pytest.mark.parametrize("path", READY, ids=[path.name for path in READY])
def test_ready_policies_have_no_warning_that_they_do_not_accept(path: Path) -> None:
    assert [str(finding) for finding in lint(load_policy(path)) if finding.fails] == []


EXPECTED = {
    ("aks/core", "all-api-servers"),
    ("aks/key-vault", "multi-tenant"),
    ("aks/istio", "multi-tenant"),
    ("aks/app-routing", "multi-tenant"),
    ("aks/tunnel", "by-address"),
    ("aks/tunnel", "old-tunnel"),
    ("aks/api-server", "api-server-by-address"),
    ("aks/ntp", "by-address"),
    ("aks/azure-monitor", "by-address"),
    ("acr", "by-address"),
    ("acr", "multi-tenant"),
    ("acr", "dedicated-switch"),
    ("mcr", "by-address"),
}
"""All that is found of the catalog, with every requirement in every way it can be had."""

PARAMETERS = {
    "location": "japaneast",
    "api_server_ips": ["20.1.2.3"],
    "region_cidrs": ["20.43.64.0/18"],
    "dns_servers": ["10.0.0.10"],
    "registry": "myregistry",
    "regions": ["japaneast"],
}


def expanded(requirement: Requirement, cloud: str, via: str | None) -> list[Rule]:
    """The rows as rules; a service tag stands for some public range."""
    return [
        rule(
            row.row.id,
            ports=row.ports,
            patterns=row.patterns,
            networks=networks("20.7.0.0/16") if row.tags else row.networks,
            tags=row.tags,
            any_destination=row.any_destination,
            requirement=requirement.id,
        )
        for row in expand(requirement.id, cloud=cloud, shared=PARAMETERS, via=via)
    ]


def test_nothing_else_is_found_of_the_catalog() -> None:
    found = {
        (requirement.id, str(finding.code))
        for requirement in load_catalog().requirements
        for cloud in requirement.clouds
        for via in requirement.vias or (None,)
        for finding in lint(policy(*expanded(requirement, cloud, via), cloud=cloud))
    }
    assert found == EXPECTED


@pytest.mark.parametrize("cloud", CLOUDS)
def test_requirements_do_not_accuse_each_other(cloud: str) -> None:
    """All of them in one policy, whatever they share."""
    rules = [
        row
        for requirement in load_catalog().requirements
        if cloud in requirement.clouds
        for row in expanded(requirement, cloud, requirement.default_via or _first(requirement))
    ]
    codes = {finding.code for finding in lint(policy(*rules, cloud=cloud))}
    assert not codes & {Code.SHADOWED, Code.REDUNDANT, Code.DUPLICATE, Code.DEAD_NAMES}


def _first(requirement: Requirement) -> str | None:
    return next(iter(requirement.vias), None)


def test_expected_of_the_catalog_are_codes() -> None:
    assert {code for _, code in EXPECTED} <= set(Code)
    assert {code.severity for code in Code} == set(Severity)


def test_thousands_of_rules_and_a_long_list() -> None:
    """Not a measurement: comparing these in pairs would run into the test's timeout."""
    mirrors = name_list(*(f"m{i}.listed.test" for i in range(50_000)), "*.other.test")
    rules = [
        *(rule(f"r{i}", f"x{i}.test", f"*.y{i}.test", f"y{i}.test") for i in range(4_000)),
        *(rule(f"s{i}", "same.test", sources=f"10.{i >> 8}.{i & 255}.0/24") for i in range(1_000)),
        rule("listed", lists=(mirrors,)),
        rule("again", "m7.listed.test", "x.other.test"),
        rule("wide", "*.listed.test", "listed.test", "*.other.test", "other.test"),
        rule("all of it", lists=(name_list(*mirrors.entries[1:], mirrors.entries[0]),)),
    ]
    found = {(finding.rule_id, str(finding.code)) for finding in lint(policy(*rules))}
    assert found == {("again", "redundant"), ("all of it", "redundant")}

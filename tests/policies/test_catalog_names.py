"""Every name and address of the catalog, judged under a policy that lists everything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest
from click.testing import CliRunner

from egressproxy.catalog import CLOUDS, load_catalog
from egressproxy.cli.main import cli
from egressproxy.names import DnsName
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.policy.verdict import Action, Flow, Pass, Reason
from egressproxy.ports import Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.patterns import Pattern
    from egressproxy.policy.rules import Policy

NOW: Final = 1_790_000_000.0
SRC: Final = "10.240.0.4"
OPTIONS: Final = {
    "aks/tunnel": "aks/tunnel: {via: api-server}",
    "acr": "acr: {registry: myregistry, regions: [eastus, westus], data_endpoint: dedicated}",
}
HEAD: Final = """\
version: 1
cloud: {cloud}
parameters:
  location: japaneast
  api_server_ips: [20.1.2.3]
  dns_servers: [10.0.0.10]
requirements:
"""


@pytest.fixture(params=CLOUDS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A policy that lists every requirement of a cloud."""
    found = [one.id for one in load_catalog().requirements if request.param in one.clouds]
    lines = [f"  - {OPTIONS.get(one, one)}\n" for one in found]
    path = tmp_path / f"{request.param}.yaml"
    path.write_text(HEAD.format(cloud=request.param) + "".join(lines))
    return path


@pytest.fixture
def policy(path: Path) -> Policy:
    return load_policy(path)


def sample(pattern: Pattern) -> DnsName:
    return DnsName(str(pattern).replace("*", "x1.y"))


def test_each_name_is_allowed_on_its_ports_and_on_no_other(policy: Policy) -> None:
    ruleset = compile_policy(policy)
    rules = [rule for rule in policy.rules if rule.patterns and not rule.networks]
    assert len(rules) > 20
    for rule in rules:
        for pattern in rule.patterns:
            for span in rule.ports:
                flow = Flow(span.protocol, SRC, span.first, name=sample(pattern))
                verdict = ruleset.decide(flow, NOW)
                assert (verdict.action, verdict.reason) == (Action.ALLOW, Reason.RULE), flow
                elsewhere = ruleset.decide(flow._replace(port=4444), NOW)
                assert elsewhere.reason is Reason.DEFAULT_DENY


def test_each_address_is_allowed_by_the_network_pass(policy: Policy) -> None:
    ruleset = compile_policy(policy)
    rules = [rule for rule in policy.rules if rule.networks]
    assert {"aks/api-server#tcp-443", "aks/custom-dns#udp"} <= {rule.id for rule in rules}
    for rule in rules:
        for span in rule.ports:
            dst = str(rule.networks[0].network_address)
            verdict = ruleset.decide(Flow(span.protocol, SRC, span.first, dst=dst), NOW)
            assert (verdict.rule_id, verdict.decided_by) == (rule.id, Pass.NETWORK)


@pytest.mark.parametrize(
    "name",
    [
        "md-hdd-x.z1.blob.storage.azure.net",
        "umsa1.blob.core.windows.net",
        "data.mcr.microsoft.com",
        "evilmcr.microsoft.com",
        "other.azurecr.io",
        "anyone.blob.core.windows.net",
        "hcp.japaneast.azmk8s.io",
        "github.com",
    ],
)
def test_names_that_the_whole_catalog_does_not_allow(policy: Policy, name: str) -> None:
    flow = Flow(Protocol.TLS, SRC, 443, name=DnsName(name))
    assert compile_policy(policy).decide(flow, NOW).reason is Reason.DEFAULT_DENY


def test_check_batch_over_every_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``catalog names | check --batch``: all is allowed but the names that only explain a deny."""
    cloud = path.stem
    extra = "  - acr: {registry: myregistry}\n"
    if cloud == "AzureCloud":
        regional = "registry: myregistry, regions: [eastus, westus], regional_endpoints: true"
        extra += f"  - acr: {{{regional}}}\n"
    path.write_text(path.read_text() + extra)
    run = CliRunner()
    asked = run.invoke(cli, ["catalog", "names", "--cloud", cloud, "--set", "location=japaneast"])
    assert (asked.exit_code, len(asked.output.splitlines()) > 40) == (0, True)
    told = run.invoke(cli, ["check", "--batch", "--policy", str(path)], input=asked.output)
    answers = [json.loads(line) for line in told.output.splitlines()]
    assert [f"{one['name']} {one['protocol']}:{one['port']}" for one in answers] == (
        asked.output.splitlines()
    )
    denied = {one["name"]: one["note"] for one in answers if one["action"] != "allow"}
    assert set(denied) == {one for one in denied if one.startswith(("md-sample.", "umsasample."))}
    if cloud == "AzureCloud":
        assert denied["md-sample.blob.storage.azure.net"] == "harmless"

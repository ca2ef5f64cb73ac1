"""Every name and address of the catalog, judged under a policy that lists everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.catalog import CLOUDS, load_catalog
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
def policy(request: pytest.FixtureRequest, tmp_path: Path) -> Policy:
    found = [one.id for one in load_catalog().requirements if request.param in one.clouds]
    lines = [f"  - {OPTIONS.get(one, one)}\n" for one in found]
    path = tmp_path / "policy.yaml"
    path.write_text(HEAD.format(cloud=request.param) + "".join(lines))
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

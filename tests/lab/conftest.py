"""The lab as a fixture: one network, one gateway with two workers, for the whole session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.kernel.firewall_options import Intercept
from lab import policies
from lab.clients import Clients
from lab.gateway import Gateway, gateway
from lab.network import Network, network
from tests.lab.attempts import TAGS
from tests.policy.tag_file import tag_file

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES: Final = """\
  - {name: strict, to: [strict.contoso.example], ports: [https], destination: strict}
  - {name: prefer, to: [prefer.contoso.example], ports: [https], destination: prefer-original}
  - {name: listed, to: [private.contoso.example], ports: [https], addresses: [10.50.0.0/24]}
  - {name: no-gists, action: deny, to: [gist.github.com], ports: [https, http]}
  - {name: second, to: [second.fabrikam.example], ports: [https, http], from: [second-node]}
  - {name: fabrikam, to: [www.fabrikam.example], ports: [https, http]}
  - {name: contoso, to: ["*.contoso.example"], ports: [https, http, "tls:8443"]}
  - {name: sql, to: [20.18.0.1], ports: ["tcp:1433"]}
  - {name: time, to: [20.18.0.1], ports: ["udp:123"]}
"""
STANDARD: Final = policies.policy(
    policies.CORE, policies.DNS, policies.API_SERVER, policies.REGISTRY, rules=RULES
)
NETWORK_RULES: Final = (
    policies.policy(
        policies.CORE,
        policies.DNS,
        policies.API_SERVER,
        rules="""\
  - {name: no-dac, action: deny, to: ["tag:Sql.JapanEast"], ports: ["tcp:11019"]}
  - {name: sql, to: ["tag:Sql.JapanEast"], ports: ["tcp:1433", "tcp:11000-11019", "udp:1434"]}
  - {name: second, to: ["tag:Sql.JapanEast"], ports: ["tcp:12000"], from: [second-node]}
  - {name: ours, to: [20.18.0.1, "2603:1040:18::1"], ports: ["udp:1194", "udp:5000", "tcp:9001"]}
  - {name: ntp, to: [ntp.ubuntu.com], ports: ["udp:123"]}
  - {name: monitor, to: [lab.ods.opinsights.azure.com], ports: ["tcp:1433"]}
  - {name: inner, to: [private.contoso.example], ports: ["tcp:1433"]}
  - {name: missing, to: [a.invalid], ports: ["tcp:1433"]}
  - {name: web, to: ["*.contoso.example"], ports: [https, http]}
""",
    )
    + f"service_tags: {TAGS}\n"
)
"""Rules of the network plane, of every kind; ``TAGS`` lies beside the policy."""


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """The network with its servers; no gateway."""
    with network(tmp_path_factory.mktemp("lab")) as built:
        yield built


@pytest.fixture(scope="session")
def session_gateway(lab: Network) -> Iterator[Gateway]:
    """The gateway that most tests share; it folds nothing, so that each flow has its record."""
    options = ("--workers", "2", "--hello-timeout-s", "2", "--fold-window-s", "0")
    with gateway(lab, STANDARD, options=options) as running:
        yield running
        running.await_no_flows()


def _under(running: Gateway, policy: str, intercept: Intercept) -> Gateway:
    if running.intercept is not intercept:
        running.restart(intercept)
    if running.policy_file.read_text() != policy:
        running.apply_policy(policy)
    return running


@pytest.fixture
def gw(session_gateway: Gateway) -> Gateway:
    """The shared gateway under the standard policy, reached by REDIRECT."""
    return _under(session_gateway, STANDARD, Intercept.REDIRECT)


@pytest.fixture(scope="session", params=list(Intercept))
def intercept(request: pytest.FixtureRequest) -> Intercept:
    """Both ways of interception; of the session, so that the gateway is restarted seldom."""
    way: Intercept = request.param
    return way


@pytest.fixture
def either(session_gateway: Gateway, intercept: Intercept) -> Gateway:
    """The shared gateway under the standard policy, once by REDIRECT and once by TPROXY."""
    return _under(session_gateway, STANDARD, intercept)


@pytest.fixture
def firewall(session_gateway: Gateway, intercept: Intercept) -> Gateway:
    """The shared gateway under ``NETWORK_RULES``, once by REDIRECT and once by TPROXY."""
    tags = session_gateway.policy_file.with_name(TAGS)
    if not tags.exists():  # it is watched
        tags.write_text(tag_file())
    return _under(session_gateway, NETWORK_RULES, intercept)


@pytest.fixture(scope="session")
def clients(lab: Network, tmp_path_factory: pytest.TempPathFactory) -> Clients:
    """The real clients; compiled ones are built once."""
    return Clients(lab, Path(__file__).parent / "clients", tmp_path_factory.mktemp("clients"))

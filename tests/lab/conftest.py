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


def _standard(running: Gateway, intercept: Intercept) -> Iterator[Gateway]:
    if running.intercept is not intercept:
        running.restart(intercept)
    yield running
    if running.policy_file.read_text() != STANDARD:
        running.apply_policy(STANDARD)


@pytest.fixture
def gw(session_gateway: Gateway) -> Iterator[Gateway]:
    """The shared gateway under the standard policy, reached by REDIRECT; records begin anew."""
    yield from _standard(session_gateway, Intercept.REDIRECT)


@pytest.fixture(scope="session", params=list(Intercept))
def intercept(request: pytest.FixtureRequest) -> Intercept:
    """Both ways of interception; of the session, so that the gateway is restarted seldom."""
    way: Intercept = request.param
    return way


@pytest.fixture
def either(session_gateway: Gateway, intercept: Intercept) -> Iterator[Gateway]:
    """The shared gateway under the standard policy, once by REDIRECT and once by TPROXY."""
    yield from _standard(session_gateway, intercept)


@pytest.fixture(scope="session")
def clients(lab: Network, tmp_path_factory: pytest.TempPathFactory) -> Clients:
    """The real clients; compiled ones are built once."""
    return Clients(lab, Path(__file__).parent / "clients", tmp_path_factory.mktemp("clients"))

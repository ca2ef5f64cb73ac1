"""``egressproxy up``: its options from all their sources, and what it says when they are wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from egressproxy.cli import run, up
from egressproxy.errors import ServiceError
from egressproxy.kernel.firewall_options import FirewallOptions, Intercept
from egressproxy.kernel.host_state import DEFAULT_STATE
from egressproxy.planes.context import ListenerKind
from egressproxy.policy.networks import parse_network
from egressproxy.service.firewall_configuration import FirewallOrder
from egressproxy.service.options import Endpoint, Listener, RunOptions

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST = ("--policy", "p.yaml", "--management", "10.0.0.64/26")
Asked = tuple[RunOptions, Any, FirewallOrder]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """Run the command up to the point where the service would begin."""
    seen: list[Asked] = []
    monkeypatch.setattr(run, "serve", lambda *order: seen.append(order))

    def call(*arguments: str, **environment: str) -> Asked:
        result = CliRunner(env=environment).invoke(up.command, list(arguments))
        if result.exception is not None:
            raise result.exception
        return seen[-1]

    return call


def test_a_policy_and_management_are_enough(invoke: Callable[..., Asked]) -> None:
    options, admin, order = invoke(*LEAST)
    assert options.listeners == (Listener(ListenerKind.REDIRECT, Endpoint("::", 15001)),)
    assert order == FirewallOrder(
        FirewallOptions(management=(parse_network("10.0.0.64/26"),), redirect_port=15001),
        DEFAULT_STATE,
    )
    assert str(admin) == "http://127.0.0.1:9090"


def test_one_file_has_it_all(invoke: Callable[..., Asked], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("correct-horse-battery-staple")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"policy: p.yaml\nmanagement: [10.9.0.0/24]\nclients: [10.240.0.0/16]\nsnat: never\n"
        f"intercept: tproxy\nexplicit: [':3128', '127.0.0.1:3129']\nadmin: ':9091'\n"
        f"admin_token_file: {token}\nstate: {tmp_path}/state.json\nmax_flows: 7\n"
    )
    options, _, order = invoke(
        "--config", str(config), "--log-rate", "5", EGRESSPROXY_SSH_PORTS="2"
    )
    assert [str(each.kind) for each in options.listeners] == ["explicit", "explicit", "tproxy"]
    assert options.settings.max_flows == 7
    assert order.state == tmp_path / "state.json"
    made = order.options
    assert made.intercept is Intercept.TPROXY
    assert (made.redirect_port, made.tproxy_port) == (0, 15001)
    assert (made.explicit_ports, made.admin_port, made.ssh_ports) == ((3128,), 9091, (2,))
    assert made.log_rate == 5


@pytest.mark.parametrize("way", list(Intercept))
def test_a_listener_that_is_named_is_the_one(way: Intercept, invoke: Callable[..., Asked]) -> None:
    options, _, order = invoke(*LEAST, f"--{way}", "0.0.0.0:15009")
    assert options.listeners == (Listener(ListenerKind(way), Endpoint("0.0.0.0", 15009)),)
    assert (order.options.intercept, order.options.proxy_port) == (way, 15009)


def test_a_listener_of_the_service_manager_is_not_opened_again(
    invoke: Callable[..., Asked],
) -> None:
    given = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    options, _, _ = invoke(*LEAST, LISTEN_FDNAMES="redirect", **given)
    assert options.listeners == ()
    options, _, _ = invoke(*LEAST, LISTEN_FDNAMES="explicit", **given)
    assert [str(each.kind) for each in options.listeners] == ["redirect"]


def test_without_ipv6_it_listens_on_ipv4(
    invoke: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "_IPV6", Path("/nonexistent"))
    assert str(invoke(*LEAST)[0].listeners[0].endpoint) == "0.0.0.0:15001"


def test_nobody_is_locked_out_by_accident(invoke: Callable[..., Asked]) -> None:
    with pytest.raises(ServiceError, match=r"management is wanted.*or none\)"):
        invoke("--policy", "p.yaml")
    assert invoke("--policy", "p.yaml", "--management", "none")[2].options.management == ()


def test_every_problem_is_told_at_once(invoke: Callable[..., Asked], tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("policy_: p.yaml\n")
    with pytest.raises(ServiceError) as caught:
        invoke("--config", str(config), "--snat", "perhaps", "--workers", "none")
    text = str(caught.value)
    assert text.startswith("4 options are wrong:")
    for part in ("policy_", "'perhaps'", "--workers", "management is wanted"):
        assert part in text
    assert "a policy is wanted" not in text


def test_a_misspelt_management_is_one_problem(invoke: Callable[..., Asked], tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("policy: p.yaml\nmanagment: [10.0.0.64/26]\n")
    with pytest.raises(ServiceError, match=r"unknown key 'managment' \(hint: management\?\)$"):
        invoke("--config", str(config))


def test_a_config_file_that_is_not_there_is_one_problem(invoke: Callable[..., Asked]) -> None:
    with pytest.raises(ServiceError, match=r"^nosuch\.yaml: cannot be read: No such file"):
        invoke("--config", "nosuch.yaml")


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        ("10.0.0.70 50000 10.0.0.4 22", ""),
        ("10.0.0.7 50000 10.0.0.4 22", "10.0.0.7"),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_an_ssh_session_that_would_be_the_last_is_warned(connection: str, said: str) -> None:
    options = FirewallOptions(management=(parse_network("10.0.0.64/26"),))
    assert up.locked_out(options, {"SSH_CONNECTION": connection}) == said


def test_the_warning_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "serve", lambda *_: None)
    environment = {"SSH_CONNECTION": "192.0.2.7 50000 10.0.0.4 22"}
    result = CliRunner(env=environment).invoke(up.command, list(LEAST))
    line = json.loads(result.stderr)
    assert line["level"] == "warning"
    assert line["event"].endswith("is not in management: the next is dropped")
    assert line["address"] == "192.0.2.7"
    assert line["hint"].startswith("--management 192.0.2.7; until then `egressproxy down`")

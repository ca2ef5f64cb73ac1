"""``doctor`` as its users run it: text, JSON, exit codes, and a configuration that is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from egressproxy.cli import doctor
from egressproxy.doctor.finding import fail, ok, warn
from egressproxy.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

    from egressproxy.doctor.finding import Finding
    from egressproxy.doctor.machine import Machine
    from egressproxy.doctor.plan import Plan

POLICY = "version: 1\ncloud: AzureCloud\nrules:\n  - {to: [a.test], ports: [https]}\n"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """No machine is looked at: ``found`` is what the checks say, ``plan`` what they were given."""
    given: dict[str, Any] = {"found": [ok("nft", "1.0.6")], "asked": []}

    def machine(_: Machine, plan: Plan) -> Iterator[Finding]:
        given["plan"] = plan
        yield from given["found"]

    async def names(_: Machine, plan: Plan) -> list[Finding]:
        given["asked"].append(plan.servers)
        return []

    monkeypatch.setattr(doctor, "examine_machine", machine)
    monkeypatch.setattr(doctor, "examine_names", names)
    return given


def run(*words: str) -> Result:
    return CliRunner().invoke(doctor.command, list(words))


@pytest.mark.parametrize(
    ("found", "words", "code"),
    [
        ([ok("a", "b")], (), 0),
        ([warn("a", "b", "c", "d")], (), 0),
        ([warn("a", "b", "c", "d")], ("--strict",), 1),
        ([ok("a", "b")], ("--strict",), 0),
        ([fail("a", "b", "c", "d")], (), 1),
    ],
)
def test_exit_codes(
    found: list[Finding], words: tuple[str, ...], code: int, seen: dict[str, Any]
) -> None:
    seen["found"] = found
    assert run("--offline", *words).exit_code == code


def test_text(seen: dict[str, Any]) -> None:
    assert run().output.splitlines() == ["ok    nft  1.0.6", "", "checks: 1, 1 ok"]
    assert len(seen["asked"]) == 1
    run("--offline")
    assert len(seen["asked"]) == 1


def test_json(seen: dict[str, Any]) -> None:
    seen["found"] = [fail("a", "b", "c", "d")]
    answer = json.loads(run("--json", "--offline").output)
    assert answer == {
        "ok": 0,
        "warn": 0,
        "fail": 1,
        "findings": [{"check": "a", "level": "fail", "seen": "b", "why": "c", "fix": "d"}],
    }


def test_a_configuration(seen: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"policy: {tmp_path}/policy.yaml\nredirect: [':15001']\nmax_flows: 7\ndns: [10.0.0.10]\n"
        "management: [10.0.9.0/24]\nclients: [10.240.0.0/16]\n"
    )
    result = run("--config", str(config), "--dns", "10.9.9.9", "--proxy-only")
    assert result.output.startswith(f"ok    configuration  {config}\nok    policy")
    plan = seen["plan"]
    assert plan.settings.max_flows == 7
    assert [str(each.endpoint) for each in plan.listeners] == ["[::]:15001"]
    assert str(plan.admin) == "127.0.0.1:9090"
    assert [str(server) for server in plan.servers] == ["10.9.9.9:53"]
    assert plan.policy is not None
    assert (plan.is_firewall, plan.firewall) == (False, None)
    run("--config", str(config))
    plan = seen["plan"]
    assert plan.is_firewall
    assert plan.firewall is not None
    assert [str(network) for network in plan.firewall.management] == ["10.0.9.0/24"]
    assert plan.firewall.redirect_port == 15001


def test_what_is_wrong_is_a_finding_and_the_rest_is_checked(
    seen: dict[str, Any], tmp_path: Path
) -> None:
    config, policy = tmp_path / "config.yaml", tmp_path / "policy.yaml"
    config.write_text("max_flow: 7\n")
    result = run("--config", str(config), "--offline")
    assert result.exit_code == 1
    assert "fail  configuration" in result.output
    assert "3 options are wrong: " in result.output
    assert "max_flows?" in result.output
    assert "ok    nft" in result.output
    config.write_text(f"policy: {policy}\nredirect: [':15001']\nsnat: perhaps\n")
    assert "'perhaps'" in run("--config", str(config), "--offline").output
    policy.write_text("version: 1\ncloud: AzureClod\nrules: 5\n")
    result = run("--policy", str(policy), "--offline")
    assert result.exit_code == 1
    assert ", and 1 more" in result.output
    assert f"egressproxy policy validate {policy}" in result.output


@pytest.mark.usefixtures("seen")
def test_a_question_that_cannot_be_read() -> None:
    assert isinstance(run("--dns", "x").exception, ServiceError)

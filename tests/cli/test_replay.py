"""``egressproxy replay`` as its users run it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from egressproxy.cli import suggest
from egressproxy.cli.main import EXIT_DENY
from egressproxy.cli.replay import command
from egressproxy.errors import EgressproxyError
from egressproxy.observe.record import to_json_line
from egressproxy.policy.verdict import Reason
from tests.cli.review_day import HOSTILE, POLICY, denied, write_day
from tests.review.subjects import record

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

CANDIDATE = POLICY.replace("*.partner.example", "www.partner.example").replace(
    "idle.example", "api.example.com"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_day(tmp_path)
    (tmp_path / "candidate.yaml").write_text(CANDIDATE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str, policy: str = "candidate.yaml") -> Result:
    asked = ("--policy", policy, "--log", "flows.jsonl", *words)
    return CliRunner().invoke(command, asked, catch_exceptions=False)


def test_what_changes(folder: Path) -> None:
    done = run()
    assert done.exit_code == 0
    assert done.stderr == (
        "candidate.yaml against what was recorded, last 7 days (UTC): 227 flows\n"
    )
    assert done.stdout.splitlines() == [
        "newly denied    40 flows to 1 name",
        "  40  api.partner.example  tls:443  10.240.0.4  default_deny, was rules/partner",
        "newly allowed   5 flows to 1 name",
        "  5  api.example.com  tls:443  10.240.0.4  rules/idle",
        "unchanged       0 allowed, 180 denied",
        "not judged      2: what the client gave is no name, address or port",
    ]


def test_the_same_policy_changes_nothing(folder: Path) -> None:
    done = run("--against", "policy.yaml", policy="policy.yaml")
    assert done.stdout.splitlines()[:2] == ["newly denied    nothing", "newly allowed   nothing"]
    assert "policy.yaml against policy.yaml" in done.stderr


@pytest.mark.parametrize(("most", "code"), [("39", EXIT_DENY), ("40", 0), ("0", EXIT_DENY)])
def test_too_much_is_newly_denied(folder: Path, most: str, code: int) -> None:
    done = run("--fail-if-newly-denied", most)
    assert done.exit_code == code
    assert (f"newly denied: 40 flows, {most} allowed" in done.stderr) is (code == EXIT_DENY)


def test_json(folder: Path) -> None:
    found = json.loads(run("--json").stdout)
    assert found["flows"] == 227
    assert found["newly_denied_flows"] == 40
    assert found["unjudged"] == {"what the client gave is no name, address or port": 2}
    (change,) = found["newly_allowed"]
    assert (change["target"], change["before"], change["after"]) == (
        "api.example.com",
        "deny",
        "allow",
    )
    assert change["rule"] == "rules/idle"


def test_audit_is_told_apart(folder: Path) -> None:
    head = "mode: audit\naudit_until: 2099-12-31\n"
    (folder / "candidate.yaml").write_text(CANDIDATE.replace("sources:", f"{head}sources:"))
    rows = run("--limit", "1").stdout.splitlines()
    assert "by audit alone  40 flows to 1 name" in rows
    assert any("audit (default_deny), was rules/partner" in row for row in rows)
    assert any("more rows: --limit 0 shows all" in row for row in rows)
    lines = [record("a.example", reason=Reason.DEFAULT_DENY, rule=None, would_deny=True)]
    lines = [each._replace(time=time.time() - 9, name="api.example.com") for each in lines]
    (folder / "flows.jsonl").write_bytes(b"".join(map(to_json_line, lines)))
    assert "rules/idle, was audit" in run().stdout


def test_denies_alone_cannot_show_what_would_be_denied(folder: Path) -> None:
    line = denied("api.example.com")._replace(time=time.time() - 9)
    (folder / "flows.jsonl").write_bytes(to_json_line(line))
    assert "no allowed flow is recorded: what would be newly denied" in run().stderr
    with pytest.raises(EgressproxyError, match="--fail-if-newly-denied has no answer"):
        run("--fail-if-newly-denied", "0")


def test_a_name_of_a_client_moves_no_terminal(folder: Path) -> None:
    line = record(HOSTILE)._replace(time=time.time() - 9, dst_ip="20.1.1.1")
    (folder / "flows.jsonl").write_bytes(to_json_line(line))
    assert "\x1b" not in run().output


def test_many_sources_are_counted(folder: Path) -> None:
    lines = [
        denied("api.example.com", src_ip=f"10.240.0.{n}")._replace(time=time.time() - 9)
        for n in range(5)
    ]
    (folder / "flows.jsonl").write_bytes(b"".join(map(to_json_line, lines)))
    assert "10.240.0.0, 10.240.0.1 +3" in run().stdout


def test_what_was_suggested_and_nothing_else_is_newly_allowed(folder: Path) -> None:
    """The way a person goes: suggest, include, replay; who tried to get out stays in."""
    asked = ["--policy", "policy.yaml", "--log", "flows.jsonl", "--write", "suggested.yaml"]
    CliRunner().invoke(suggest.command, asked, catch_exceptions=False)
    (folder / "candidate.yaml").write_text(POLICY + "include: [suggested.yaml]\n")
    found = json.loads(run("--json", "--fail-if-newly-denied", "0").stdout)
    assert {(each["target"], each["flows"]) for each in found["newly_allowed"]} == {
        ("packages.aks.azure.com", 30),
        ("lab-1.hcp.japaneast.azmk8s.io", 20),
        ("api.example.com", 5),
        ("db.example", 2),
    }
    assert found["newly_denied"] == []
    assert found["unchanged_allowed_flows"] == 40

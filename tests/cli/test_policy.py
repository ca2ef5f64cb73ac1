"""``egressproxy policy``: what it prints, where, and how it exits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from egressproxy.cli import policy, policy_page
from egressproxy.policy.load import load_policy

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
version: 1
cloud: AzureCloud
audit_until: 2026-12-31
mode: audit
sources: {build: [10.1.0.0/16]}
requirements: [aks/tunnel: {via: any}]
rules:
  - {name: hub, to: [github.com, "*.github.com", "list:n.txt"], ports: [https], from: [build]}
  - {name: net, action: deny, to: [10.0.0.0/8], ports: ["tcp:22"], from: [10.2.0.0/16], mode: audit}
  - {to: [a.example.com], ports: [https], until: 2026-12-31}
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / "n.txt").write_text("x.example.com\n")
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text("version: 1\ncloud: AzureCloud\nruels: []\nmode: on\n")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(policy.command, [str(argument) for argument in arguments])


def test_validate_good(good: Path) -> None:
    result = run("validate", good)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{good}: good: 5 rules, 1 listed name, mode audit, digest ")
    assert "warning: aks/tunnel#" in result.stderr  # findings do not fail it without --strict


def test_validate_bad(bad: Path) -> None:
    result = run("validate", bad)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"{bad}:3:1: unknown key 'ruels' in a policy, hint: did you mean rules?\n"
        f"{bad}:4:7: on is not a mode, hint: write enforce or audit or warn-on-new\n"
        f"{bad}: 2 problems\n"
    )


def test_validate_no_file(tmp_path: Path) -> None:
    result = run("validate", tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert result.stderr.endswith("none.yaml: 1 problem\n")


ODD = """\
version: 1
cloud: AzureCloud
rules:
  - {name: sites, to: ["*.azurewebsites.net"], ports: [https]ACCEPT}
  - {name: wild, to: ["*.example.com"], ports: [https]}
"""
SITES = (
    "warning: rules/sites: *.azurewebsites.net is everybody's: any customer can have a name there"
)
WILD = "info: rules/wild: *.example.com does not cover example.com"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    path = tmp_path / "odd.yaml"
    path.write_text(ODD.replace("ACCEPT", ""))
    return path


@pytest.fixture
def accepting(tmp_path: Path) -> Path:
    path = tmp_path / "accepting.yaml"
    path.write_text(ODD.replace("ACCEPT", ", accept: [multi-tenant]"))
    return path


def test_validate_strict(odd: Path, accepting: Path) -> None:
    result = run("validate", "--strict", odd)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{odd}:4: {SITES}" in result.stderr
    assert f"{odd}:5: {WILD}" in result.stderr
    assert result.stderr.endswith(f"{odd}: valid, but 1 warning\n")
    assert run("validate", odd).exit_code == 0
    result = run("validate", "--strict", accepting)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{accepting}: good: 2 rules, ")
    assert "rules/sites" not in result.stderr


def test_validate_strict_bad(bad: Path) -> None:
    assert run("validate", "--strict", bad).exit_code == 2


def test_lint(odd: Path) -> None:
    result = run("lint", odd)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{odd}:4: {SITES}, hint: list the names that you use [multi-tenant]",
        f"{odd}:5: {WILD}, hint: add example.com if it is meant [missing-apex]",
    ]
    assert result.stderr == f"{odd}: 1 warning, 1 info\n"


def test_lint_accepting(accepting: Path) -> None:
    result = run("lint", accepting)
    assert result.exit_code == 0
    assert result.stdout == (
        f"{accepting}:5: {WILD}, hint: add example.com if it is meant [missing-apex]\n"
    )
    assert result.stderr == f"{accepting}: 1 info, 1 accepted\n"
    shown = run("lint", "--accepted", accepting).stdout
    assert shown.startswith(f"{accepting}:4: accepted: rules/sites: ")


def test_lint_nothing(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\ncloud: AzureCloud\n")
    result = run("lint", path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"{path}: nothing found\n"


def test_lint_json(odd: Path, accepting: Path) -> None:
    result = run("lint", "--json", odd)
    assert (result.exit_code, result.stderr) == (1, "")
    shown = json.loads(result.stdout)
    assert (shown["warnings"], shown["infos"], shown["accepted"]) == (1, 1, 0)
    assert [finding["code"] for finding in shown["findings"]] == ["multi-tenant", "missing-apex"]
    result = run("lint", "--json", accepting)
    assert result.exit_code == 0
    assert [one["accepted"] for one in json.loads(result.stdout)["findings"]] == [True, False]


def test_lint_bad(bad: Path) -> None:
    result = run("lint", bad)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(f"{bad}: 2 problems\n")


def test_show_in_a_pipe(good: Path) -> None:
    result = run("show", good)
    assert result.exit_code == 0
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[:5] for line in lines] == [
        [
            "rules/hub",
            "allow",
            "github.com, *.github.com, list:n.txt (names: 1)",
            "tls:443",
            "build",
        ],
        ["rules/net", "deny, audit", "10.0.0.0/8", "tcp:22", "10.2.0.0/16"],
        ["rules/#3", "allow, until 2026-12-31", "a.example.com", "tls:443", "everyone"],
        ["aks/tunnel#udp-1194-any", "allow", "any address", "udp:1194", "everyone"],
        ["aks/tunnel#tcp-9000-any", "allow", "any address", "tcp:9000", "everyone"],
    ]
    assert lines[0][5] == f"{good}:8"


def test_show_on_a_terminal(
    good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    policy_page.print_policy(load_policy(good))
    printed = capsys.readouterr().out
    assert "AzureCloud, mode audit until 2026-12-31, digest " in printed
    assert "rules/hub" in printed


def test_show_shortens_long_rules(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    names = ", ".join(f"n{i}.example.com" for i in range(20))
    path.write_text(f"version: 1\ncloud: AzureCloud\nrules: [{{to: [{names}], ports: [https]}}]\n")
    assert "n11.example.com, and 8 more\t" in run("show", path).stdout


def test_show_json(good: Path) -> None:
    shown = json.loads(run("show", "--json", good).stdout)
    assert (shown["cloud"], shown["mode"], shown["audit_until"]) == (
        "AzureCloud",
        "audit",
        "2026-12-31",
    )
    assert [rule["id"] for rule in shown["rules"]][:2] == ["rules/hub", "rules/net"]
    assert shown["rules"][0]["from"] == ["10.1.0.0/16"]
    assert shown["rules"][0]["lists"][0]["entries"] == 1
    assert shown["rules"][2]["from"] is None
    assert shown["rules"][3]["origin"]["document"]


def test_diff(good: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.yaml"
    new.write_text(
        GOOD.replace("mode: audit\nsources", "sources").replace("audit_until: 2026-12-31\n", "")
    )
    assert run("diff", good, good).exit_code == 0
    assert run("diff", good, good).stdout == ""
    result = run("diff", good, new)
    assert result.exit_code == 1
    assert "~ mode: audit -> enforce\n" in result.stdout


def test_diff_of_a_bad_policy(good: Path, bad: Path) -> None:
    assert run("diff", good, bad).exit_code == 2


def test_diff_says_what_it_did_not_ask(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egressproxy.policy.verdict_diff.MAX_QUESTIONS", 0)
    assert "not compared: too many" in run("diff", good, good).stderr


def test_schema() -> None:
    root = json.loads(run("schema").stdout)
    included = json.loads(run("schema", "--included").stdout)
    assert set(root["properties"]) - set(included["properties"]) >= {"mode", "cloud"}


def test_allow_outside(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "n.txt").write_text("x.example.com\n")
    path = folder / "p.yaml"
    path.write_text(
        "version: 1\ncloud: AzureCloud\nrules: [{to: ['list:../n.txt'], ports: [https]}]\n"
    )
    assert run("validate", path).exit_code == 2
    assert run("validate", "--allow-outside", path).exit_code == 0

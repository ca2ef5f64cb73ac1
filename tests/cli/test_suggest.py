"""``egressproxy suggest`` as its users run it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from egressproxy.cli import suggest
from egressproxy.cli.suggest import command
from egressproxy.errors import EgressproxyError, PolicyError
from egressproxy.observe.record import to_json_line
from egressproxy.policy.load import load_policy
from tests.cli.review_day import HOSTILE, POLICY, denied, write_day

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_day(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    asked = ("--policy", "policy.yaml", "--log", "flows.jsonl", *words)
    return CliRunner().invoke(command, asked, catch_exceptions=False)


def without_comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


def test_yaml_goes_to_stdout(folder: Path) -> None:
    done = run()
    assert done.exit_code == 0
    assert without_comments(done.stdout) == [
        "version: 1",
        "requirements:",
        "  - aks/core: {api_server_fqdn: lab-1.hcp.japaneast.azmk8s.io, from: [cluster-a]}",
        "rules:",
        "  - name: api.example.com",
        "    to: [api.example.com]",
        "    ports: [https]",
        "    from: [cluster-a]",
        "  - name: db.example",
        "    to: [db.example]",
        '    ports: ["tcp:5432"]',
        "    from: [cluster-a]",
    ]
    assert "# 50 flows of 1 client" in done.stdout


def test_the_yaml_is_an_include_file(folder: Path) -> None:
    (folder / "more.yaml").write_text(run().stdout)
    (folder / "policy.yaml").write_text(POLICY + "include: [more.yaml]\n")
    ids = {rule.id for rule in load_policy(folder / "policy.yaml").rules}
    assert {"more.yaml/rules/api.example.com", "aks/core#binaries"} <= ids


def test_the_rest_goes_to_stderr_with_reasons(folder: Path) -> None:
    told = run().stderr
    assert told.startswith("policy.yaml, last 7 days (UTC): 3 additions let 57 of ")
    for why in (
        "documented as harmless when blocked",
        "rules/no-gists denies it (",
        "any customer can have a name below blob.core.windows.net: make sure that it is yours",
        "no rule can allow it: the client's bytes are refused",
        "suspicious: ",
    ):
        assert why in told
    assert "exfil" not in run().stdout


@pytest.mark.usefixtures("folder")
def test_reasons_are_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_pipe = run().stderr
    monkeypatch.setattr(suggest, "_width", lambda: 60)
    for written in ((), ("--write", "suggested.yaml")):
        told = run(*written).stderr
        _, _, reasons = told.partition("not suggested\n")
        assert "\n\n\n" not in told
        assert max(len(row) for row in reasons.splitlines() if row.startswith(" " * 6)) <= 60
        if not written:
            assert told.split() == in_a_pipe.split(), "every word of it"


def test_no_terminal_is_coloured_or_moved_by_a_name(folder: Path) -> None:
    done = run()
    assert HOSTILE not in done.output
    assert "\x1b" not in done.output
    assert "\u202e" not in done.output


def test_write_and_write_again(folder: Path) -> None:
    done = run("--write", "suggested.yaml")
    assert done.exit_code == 0
    assert done.stdout == ""
    assert "suggested.yaml: 3 added\n" in done.stderr
    assert "add to policy.yaml:  include: [suggested.yaml]" in done.stderr
    (folder / "policy.yaml").write_text(POLICY + "include: [suggested.yaml]\n")
    before = (folder / "suggested.yaml").read_bytes()
    again = run("--write", "suggested.yaml")
    assert "suggested.yaml: nothing to add" in again.stderr
    assert (folder / "suggested.yaml").read_bytes() == before
    more = run("--write", "suggested.yaml", "--mine", "stolen.blob.core.windows.net")
    assert "suggested.yaml: 1 added, 3 kept" in more.stderr
    assert "policy.yaml includes it already" in more.stderr
    load_policy(folder / "policy.yaml")


def test_hand_written_yaml_is_never_touched(folder: Path) -> None:
    with pytest.raises(EgressproxyError, match="was not written by suggest"):
        run("--write", "policy.yaml")
    assert (folder / "policy.yaml").read_text() == POLICY


def test_a_file_that_cannot_be_included(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "policy.yaml").rename(folder / "sub" / "policy.yaml")
    done = CliRunner().invoke(
        command,
        ["--policy", "sub/policy.yaml", "--log", "flows.jsonl", "--write", "suggested.yaml"],
        catch_exceptions=False,
    )
    assert "it cannot be included: move it to the folder of sub/policy.yaml" in done.stderr


def test_json(folder: Path) -> None:
    found = json.loads(run("--json").stdout)
    assert [(each["kind"], each["title"], each["flows"]) for each in found["suggestions"]] == [
        ("requirement", "aks/core", 50),
        ("name", "api.example.com", 5),
        ("name", "db.example", 2),
    ]
    first = found["suggestions"][0]
    assert set(first) == {
        "kind", "title", "why", "risk", "flows", "targets", "target_count", "sources",
        "source_count", "first_seen", "last_seen", "yaml",
    }  # fmt: skip
    stolen = next(each for each in found["withheld"] if each["title"].startswith("stolen"))
    assert "to: [stolen.blob.core.windows.net]" in stolen["yaml"]


def test_options(folder: Path) -> None:
    titles = [
        each["title"]
        for each in json.loads(run("--json", "--at-least", "10").stdout)["suggestions"]
    ]
    assert titles == ["aks/core"]
    narrow = json.loads(run("--json", "--name", "*.example.com").stdout)["suggestions"]
    assert [each["title"] for each in narrow] == ["api.example.com"]


def test_nothing_denied(folder: Path) -> None:
    done = run("--name", "nobody.example")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith("nothing was denied: last 7 days, name nobody.example")


def test_nothing_to_suggest(folder: Path) -> None:
    done = run("--name", "gist.github.com")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "nothing to suggest for 4 denied flows" in done.stderr


def test_a_policy_that_cannot_be_read(folder: Path) -> None:
    (folder / "policy.yaml").write_text("version: 2\n")
    with pytest.raises(PolicyError):
        run()


def test_many_reasons_and_names_are_cut(folder: Path) -> None:
    rules = "".join(
        f"  - {{name: no-{n}, action: deny, to: [no{n}.example], ports: [https]}}\n"
        for n in range(25)
    )
    (folder / "policy.yaml").write_text(POLICY + rules)
    lines = [
        denied(f"no{n}.example")._replace(time=__import__("time").time() - 9) for n in range(25)
    ]
    (folder / "flows.jsonl").write_bytes(b"".join(map(to_json_line, lines)))
    assert "5 more reasons: --json has them" in run().stderr

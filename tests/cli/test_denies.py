"""``egressproxy denies``: at several widths, in a pipe, as data; filters, classes, empty ends."""

from __future__ import annotations

import csv
import io
import json
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from click.testing import CliRunner

from egressproxy.cli import denies, listing
from egressproxy.cli.denies import command
from egressproxy.cli.main import EXIT_DENY, EXIT_ERROR
from egressproxy.cli.review_page import size
from egressproxy.cli.store_option import STORE_VARIABLE
from egressproxy.errors import PolicyError
from egressproxy.observe.record import FlowRecord, Plane, to_json_line
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review import queries
from egressproxy.review.bounds import Bounds
from egressproxy.review.model import Class, Finding
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from egressproxy.review.model import Subject

NOW: Final = 1_790_082_000.0  # 2026-09-22 13:00 UTC
DENY: Final = FlowRecord(
    NOW - 600,
    "0-f",
    40_000,
    Action.DENY,
    Reason.DEFAULT_DENY,
    Plane.TRANSPARENT,
    "tls",
    "10.240.0.4",
    443,
    dst_ip="20.1.2.3",
)
POLICY: Final = """\
version: 1
cloud: AzureCloud
rules:
  - {name: github, to: [github.com], ports: [https]}
"""
HOSTILE: Final = "\x1b[31m<b>\u202e=1+1\r\n"


def records() -> list[FlowRecord]:
    exfil = [f"{number:032x}.t.exfil.example" for number in range(12)]
    found = [DENY._replace(name=n, src_ip="10.244.7.66", time=NOW - 7000) for n in exfil]
    found += [
        DENY._replace(name="mcr.microsoft.com", count=412, note="needed-by: aks/core"),
        DENY._replace(name="mcr.microsoft.com", src_ip="10.240.0.5", time=NOW - 80_000),
        DENY._replace(name="api.github.com", count=17, time=NOW - 3600),
        DENY._replace(name="registry.partner.example", src_ip="10.244.0.10", count=3),
        DENY._replace(name="registry.partner.example", src_ip="10.244.0.10", dst_port=8443),
        DENY._replace(name=f"{'a' * 60}.{'b' * 60}.example", src_ip="2001:db8::4:1:2:3:4"),
        DENY._replace(name=HOSTILE),
        DENY._replace(name="md-hdd-1.z1.blob.storage.azure.net", count=1600, note="harmless"),
        DENY._replace(dst_ip=None, dst_port=0, reason=Reason.HELLO_TIMEOUT, count=2),
        DENY._replace(name="old.example", time=NOW - 3 * 86_400, count=9),
        DENY._replace(name="github.com", action=Action.ALLOW, rule="rules/github", count=50),
    ]
    return found


class Judge:
    """As a classifier, with words that only change here."""

    def finding(self, subject: Subject) -> Finding:
        name = subject.name or ""
        if name.endswith(".t.exfil.example"):
            why = "10.244.7.66 wanted 12 long names below t.exfil.example: data can leave in names"
            return Finding(kind=Class.SUSPICIOUS, why=why)
        if name == "mcr.microsoft.com":
            return Finding(
                kind=Class.MISSING_REQUIREMENT,
                why="aks/core allows it, and the policy does not list it",
                requirement="aks/core",
                symptom="node bootstrap fails with CSE exit code 50",
            )
        if name == "api.github.com":
            why = "github.com is that name only (rule rules/github)"
            return Finding(kind=Class.NEAR_MISS, why=why)
        if name.startswith("md-"):
            return Finding(kind=Class.HARMLESS, why="disk metadata, documented as harmless")
        return Finding(kind=Class.UNKNOWN, why="neither the policy nor the catalog knows it")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store of the environment, and that moment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "review.db"))
    with open_store(str(tmp_path / "review.db")) as store:
        Writer(store, gateway="hub-1", bounds=Bounds()).add(records())
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path


@pytest.fixture
def judged(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(denies, "classifier_of", lambda *_, **__: Judge())
    return place


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def as_json(*arguments: str) -> dict[str, Any]:
    content = json.loads(run(*arguments, "--json").stdout)
    assert isinstance(content, dict)
    return content


def keys(*arguments: str) -> list[str]:
    return [line["key"] for line in as_json(*arguments)["lines"]]


PAGES: dict[str, tuple[int | None, tuple[str, ...]]] = {
    "denies-80.txt": (80, ()),
    "denies-100.txt": (100, ()),
    "denies-160.txt": (160, ()),
    "denies-pipe.txt": (None, ()),
    "denies-source.txt": (100, ("--group-by", "source")),
    "denies-reason.txt": (100, ("--group-by", "reason", "--since", "7d")),
    "denies-class.txt": (100, ("--group-by", "class")),
    "denies-requirement.txt": (100, ("--group-by", "requirement", "--limit", "1")),
    "denies-no-fold.txt": (100, ("--no-fold", "--class", "suspicious", "--limit", "3")),
    "denies-today.txt": (100, ("--since", "2h", "--name", "*.github.com")),
}


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize(("name", "page"), PAGES.items(), ids=PAGES)
def test_golden(
    name: str,
    page: tuple[int | None, tuple[str, ...]],
    golden: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    width, arguments = page
    monkeypatch.setattr(listing, "terminal_width", lambda: width)
    golden(name, run(*arguments).output)


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize("width", [60, 80, 100, 132, 160, 400, None])
@pytest.mark.parametrize("group_by", ["name", "source", "port"])
def test_no_name_is_cut_and_no_byte_of_a_peer_gets_out(
    width: int | None, group_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "terminal_width", lambda: width)
    output = run("--group-by", group_by, "--no-fold").stdout
    assert "mcr.microsoft.com" in output
    assert f"{'a' * 60}.{'b' * 60}.example" in output or group_by != "name"
    assert all(line.isprintable() for line in output.splitlines())
    if width is None:
        assert all("  " in line for line in output.splitlines())


@pytest.mark.usefixtures("judged")
def test_colours_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "terminal_width", lambda: 100)
    on_terminal = CliRunner().invoke(command, color=True).stdout
    assert "\x1b[31m\x1b[1msuspicious\x1b[0m" in on_terminal
    assert "\x1b[31m<b>" not in on_terminal
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in CliRunner().invoke(command, color=True).output
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setattr(listing, "terminal_width", lambda: None)
    assert "\x1b" not in run().output


@pytest.mark.usefixtures("judged")
def test_data_on_stdout_words_on_stderr() -> None:
    result = run("--class", "near-miss")
    assert result.stdout.splitlines()[0].split()[:2] == ["CLASS", "FLOWS"]
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr.splitlines() == [
        "denied, last 24 h, class near-miss (UTC): 17 flows, 1 name, from 1 source",
        "near miss 1",
        "",
    ]


FILTERED: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "a name": (("--name", "api.github.com"), ["api.github.com"]),
    "names": (
        ("--name", "mcr.*,api.*"),
        ["mcr.microsoft.com", "api.github.com"],
    ),
    "a source": (("--from", "10.244.0.0/24"), ["registry.partner.example"]),
    "a reason": (("--reason", "hello_timeout"), ["(no name)"]),
    "a port": (("--port", "8443"), ["registry.partner.example"]),
    "another gateway": (("--gateway", "hub-2"), []),
    "classes": (
        ("--class", "missing-requirement", "--class", "near-miss"),
        ["mcr.microsoft.com", "api.github.com"],
    ),
    "longer ago": (("--since", "7d", "--until", "2d"), ["old.example"]),
    "the commonest first": (
        ("--sort", "count", "--limit", "2"),
        ["md-hdd-1.z1.blob.storage.azure.net", "mcr.microsoft.com"],
    ),
}


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize(("arguments", "expected"), FILTERED.values(), ids=FILTERED)
def test_filters(arguments: tuple[str, ...], expected: list[str]) -> None:
    assert keys(*arguments) == expected


@pytest.mark.usefixtures("judged")
def test_as_json() -> None:
    page = as_json("--since", "7d", "--limit", "1", "--sort", "last")
    assert page["filter"] == "since=2026-09-15T13%3A00Z"
    assert page["totals"]["flows"] == sum(r.count for r in records() if r.action == "deny")
    assert (page["more"], len(page["lines"])) == (19, 1)
    (line,) = as_json("--name", "mcr.microsoft.com")["lines"]
    assert (line["class"], line["requirement"], line["flows"]) == (
        "missing requirement",
        "aks/core",
        413,
    )
    assert line["symptom"] == "node bootstrap fails with CSE exit code 50"


@pytest.mark.usefixtures("judged")
def test_as_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(run("--csv").stdout, newline="")))
    assert len(rows) == 19  # none folded
    assert {row["class"] for row in rows} == {
        "suspicious",
        "missing requirement",
        "near miss",
        "unknown",
        "harmless",
    }
    assert all(row["name"].isprintable() for row in rows)


@pytest.mark.usefixtures("judged")
def test_what_is_left_out_of_data_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = run("--csv", "--limit", "2").stderr
    assert told == "\n17 more lines: --limit 0 shows all\n"
    monkeypatch.setattr(queries, "MAX_GROUPS", 3)
    for arguments in (("--csv",), ("--limit", "0")):
        told = run("--sort", "count", "--no-fold", *arguments).stderr
        assert told.endswith("\n16 more lines: narrow it with --since, --from or --name\n")


REFUSED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "every condition at once": (
        ("--since", "soon", "--port", "x", "--from", "10.1.0.4/16"),
        ("--since: 'soon' is no time", "--port: 'x' is no port", "write 10.1.0.0/16"),
    ),
    "a misspelt class": (("--class", "near-mis"), ("did you mean near-miss?",)),
    "json and csv": (("--json", "--csv"), ("give one of them",)),
    "csv and follow": (("--csv", "--follow"), ("--follow prints text",)),
    "follow and what only a report has": (
        ("--follow", "--group-by", "source", "--limit", "3"),
        ("--follow prints every flow as it comes: leave out --group-by, --limit",),
    ),
    "no such group": (("--group-by", "colour"), ("'colour' is not one of",)),
}


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("arguments", "says"), REFUSED.values(), ids=REFUSED)
def test_refused(arguments: tuple[str, ...], says: tuple[str, ...]) -> None:
    output = run(*arguments, code=EXIT_ERROR).stderr
    for words in says:
        assert words in output


@pytest.mark.usefixtures("judged")
def test_exit_code() -> None:
    run("--exit-code", code=EXIT_DENY)
    run("--exit-code", "--name", "no.example")


EMPTY: dict[str, tuple[tuple[str, ...], str]] = {
    "no such name": (
        ("--name", "no.example"),
        "hint: without conditions there are 2,059 flows, from 2026-09-19T13:00:00Z to"
        " 2026-09-22T12:50:00Z",
    ),
    "too short ago": (("--since", "1m"), "hint: without conditions there are 2,059 flows"),
}


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize(("arguments", "hint"), EMPTY.values(), ids=EMPTY)
def test_nothing_was_denied(arguments: tuple[str, ...], hint: str) -> None:
    result = run(*arguments)
    assert result.stdout == ""
    told, hinted = result.stderr.splitlines()
    assert told.startswith("nothing was denied: last ")
    assert told.endswith("review.db")
    assert hinted.startswith(hint)
    assert run(*arguments, "--csv").stdout.count("\n") == 1
    assert as_json(*arguments)["lines"] == []


def test_a_store_without_records(place: Path) -> None:
    with open_store("empty.db"):
        pass
    assert "does the gateway run with this --review-store?" in run("--store", "empty.db").stderr


def test_a_log_of_something_else(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STORE_VARIABLE)
    (place / "syslog").write_text("Sep 22 13:00:00 host systemd: started\n")
    told = run("--log", "syslog").stderr.splitlines()
    assert told[0] == "warning: syslog: 1 line is no record (line 1)"
    assert told[2] == "hint: there are no flow records in it, which are lines of JSON"


def test_a_store_of_allows(place: Path) -> None:
    with open_store("allows.db") as store:
        allow = DENY._replace(action=Action.ALLOW, name="a.example")
        Writer(store, gateway="hub-1", bounds=Bounds()).add([allow])
    assert "hint: it holds no denies at all\n" in run("--store", "allows.db").stderr


# With the real classifier


def test_classes_of_a_policy(place: Path) -> None:
    lines = as_json("--policy", "policy.yaml")["lines"]
    kinds = {line["key"]: line["class"] for line in lines}
    assert kinds["mcr.microsoft.com"] == "missing requirement"
    assert kinds["api.github.com"] == "near miss"
    assert kinds["registry.partner.example"] in ("unknown", "suspicious")
    mcr = next(line for line in lines if line["key"] == "mcr.microsoft.com")
    assert mcr["requirement"] == "aks/core"
    assert "50" in mcr["symptom"]


def test_classes_without_a_policy_are_those_of_the_records(place: Path) -> None:
    kinds = {line["key"]: line["class"] for line in as_json()["lines"]}
    assert kinds["mcr.microsoft.com"] == "missing requirement"
    assert kinds["api.github.com"] == "unknown"


def test_a_policy_that_is_wrong(place: Path) -> None:
    (place / "policy.yaml").write_text("version: 2\n")
    result = CliRunner().invoke(command, ["--policy", "policy.yaml"])
    assert isinstance(result.exception, PolicyError)


def test_a_log_without_any_set_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STORE_VARIABLE)
    (place / "flows.jsonl").write_bytes(b"".join(map(to_json_line, records())) + b"junk\n")
    result = run("--log", "flows.jsonl", "--json")
    assert json.loads(result.stdout)["totals"]["flows"] == 2050  # all but those of three days ago
    assert "warning: flows.jsonl: 1 line is no record (line 24)\n" in result.stderr
    old = run("--log", "flows.jsonl", "--since", "1h")
    assert "1 older record of the log left out: --since takes more" in old.stderr


PASSED: dict[str, tuple[list[FlowRecord], str]] = {
    "all by audit": ([DENY._replace(count=3, would_deny=True, action=Action.ALLOW)], "by audit"),
    "some by audit": (
        [DENY, DENY._replace(count=3, would_deny=True, action=Action.ALLOW)],
        "by audit: 3",
    ),
    "as first seen": (
        [DENY._replace(would_deny=True, action=Action.ALLOW, reason=Reason.NEW_NAME)],
        "as first seen",
    ),
}


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize(("made", "how"), PASSED.values(), ids=PASSED)
def test_what_passed_is_told(made: list[FlowRecord], how: str) -> None:
    with open_store("audit.db") as store:
        audited = [record._replace(name="audited.example") for record in made]
        Writer(store, gateway="hub-1", bounds=Bounds()).add(audited)
    row = run("--store", "audit.db").stdout.splitlines()[1]
    assert row.endswith(f"neither the policy nor the catalog knows it; let pass {how}")


SIZES: dict[int, str] = {
    0: "0",
    999: "999",
    1000: "1.0K",
    12_595: "12.3K",
    4 << 30: "4.0G",
    1 << 60: "1024.0P",
}


@pytest.mark.parametrize(("octets", "text"), SIZES.items())
def test_sizes(octets: int, text: str) -> None:
    assert size(octets) == text

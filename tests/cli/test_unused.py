"""``egressproxy unused`` as its users run it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from egressproxy.cli.unused import command
from egressproxy.review.bounds import Bounds
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer
from tests.cli.review_day import day, write_day

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

DAY = 86400.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_day(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    place = () if "--store" in words else ("--log", "flows.jsonl")
    asked = ("--policy", "policy.yaml", *place, *words)
    return CliRunner().invoke(command, asked, catch_exceptions=False)


def store(folder: Path, allows: str) -> str:
    place = str(folder / "review.db")
    with open_store(place) as opened:
        writer = Writer(opened, gateway="hub", bounds=Bounds())
        writer.note_recording(since=time.time() - 60 * DAY, allows=allows)
        old = [each._replace(time=time.time() - 50 * DAY) for each in day()[:1]]
        writer.add([*old, *day()])
        writer.note_rule_hits({"aks/ntp#ubuntu": 9}, at=time.time() - DAY)
    return place


def test_of_a_log(folder: Path) -> None:
    done = run()
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "unused   2 rules and requirements",
        "  aks/ntp     policy.yaml:5",
        "  rules/idle  policy.yaml:8",
        "used     2 rules and requirements",
    ]
    assert "note: records go back less than one of 30 days" in done.stderr
    assert "note: nobody says whether every allow was recorded" in done.stderr


def test_of_a_store_that_has_everything(folder: Path) -> None:
    done = run("--store", store(folder, "all"))
    assert done.stdout.splitlines() == [
        "unused   1 rule or requirement",
        "  rules/idle  policy.yaml:8",
        "used     3 rules and requirements",
    ]
    assert done.stderr == "policy.yaml, 30 of the last 30 days:\n"


def test_what_cannot_be_told_is_said(folder: Path) -> None:
    done = run("--store", store(folder, "none"))
    assert done.stdout.splitlines() == [
        "unused   nothing",
        "unknown  1 rule or requirement",
        "  rules/idle  policy.yaml:8  allows are not recorded (--log-allows)",
        "used     3 rules and requirements",
    ]


def test_json(folder: Path) -> None:
    found = json.loads(run("--json", "--store", store(folder, "all")).stdout)
    assert {each["id"]: (each["use"], each["flows"]) for each in found["rules"]} == {
        "rules/partner": ("used", 40),
        "rules/idle": ("unused", 0),
        "rules/no-gists": ("used", 4),
    }
    (ntp,) = found["requirements"]
    assert (ntp["id"], ntp["use"], ntp["rows"][0]["packets"]) == ("aks/ntp", "used", 9)


def test_rows_of_a_requirement_in_use(folder: Path) -> None:
    text = (folder / "policy.yaml").read_text()
    (folder / "policy.yaml").write_text(text.replace("[aks/ntp]", "[aks/core]"))
    rows = run().stdout.splitlines()
    assert "  aks/core is used, 6 of 8 rows not" in rows
    assert "    … 1 more: --rows shows all" in rows
    assert not any("more: --rows" in row for row in run("--rows").stdout.splitlines())

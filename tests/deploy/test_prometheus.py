"""deploy/prometheus: rules that promtool accepts and tests, about metrics that there are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deploy.metric_names import OF_PROMETHEUS, families, named, selected_labels

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "deploy" / "prometheus"
ALERTS: Final = FOLDER / "alerts.yaml"
UNIT_TESTS: Final = sorted((ROOT / "tests" / "deploy").glob("alerts*.test.yaml"))
PAGE: Final = ROOT / "docs" / "alerts.md"

RULES: Final[list[dict[str, Any]]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
NAMES: Final = [rule["alert"] for rule in RULES]


def promtool(*words: str) -> str:
    """What promtool says; a failure of its is one of the test."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("needs promtool (Debian: apt-get install prometheus)")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_valid() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(ALERTS))


def test_the_scrape_job_is_valid() -> None:
    promtool("check", "config", "--syntax-only", str(FOLDER / "scrape.yaml"))


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_the_rules_say_what_they_should_and_nothing_else(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", str(path))


def test_every_alert_is_seen_to_fire() -> None:
    told = "".join(path.read_text() for path in UNIT_TESTS)
    fired = set(re.findall(r'alertname="(\w+)"', told)) | set(
        re.findall(r"alertname: (\w+)\n *eval_time: \w+\n *exp_alerts:\n", told)
    )
    assert set(NAMES) == fired


def test_names_are_used_once() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_is_about_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    known = families()
    assert named(rule["expr"]) <= known.keys()
    for name, label in selected_labels(rule["expr"]):
        assert label in known[name] | OF_PROMETHEUS, (name, label)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_says_what_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    notes = rule["annotations"]
    assert notes["summary"]
    assert notes["description"]
    page, _, anchor = notes["runbook"].partition("#")
    assert (ROOT / page) == PAGE
    assert anchor == rule["alert"].lower()
    assert f"\n## {rule['alert']}\n" in PAGE.read_text()


def test_the_page_has_no_alert_that_is_gone() -> None:
    assert re.findall(r"^## (Egressproxy\w+)$", PAGE.read_text(), re.MULTILINE) == NAMES

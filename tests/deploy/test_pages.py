"""deploy/README.md and docs/on-call.md, beyond what tests/test_docs.py holds of every page."""

from __future__ import annotations

import re
import time
from dataclasses import fields
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from egressproxy.catalog import load_catalog
from egressproxy.catalog.parameters import PARAMETERS
from egressproxy.cli.main import cli
from egressproxy.observe.record import FlowRecord, Plane, to_json_line
from egressproxy.policy.verdict import Action, Reason
from egressproxy.settings import Settings
from tests import reference
from tests.deploy.up_names import up_names

ROOT: Final = Path(__file__).parents[2]
DEPLOYING: Final = ROOT / "deploy" / "README.md"
ON_CALL: Final = ROOT / "docs" / "on-call.md"
ALERTS: Final = ROOT / "docs" / "alerts.md"
PAGES: Final = (DEPLOYING, ON_CALL)
NODE: Final = "10.240.0.7"
"""As the page on call writes it."""
_SPAN: Final = re.compile(r"`([^`\n]+)`")
_FENCE: Final = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def spans(page: Path) -> list[str]:
    """What is in backticks in its prose."""
    return _SPAN.findall(_FENCE.sub("", page.read_text()))


@pytest.mark.parametrize("page", [*PAGES, ALERTS], ids=lambda page: page.name)
def test_commands_in_prose_exist(page: Path) -> None:
    known = {path: command for path, command, _ in reference.commands()}
    named = [span.split() for span in spans(page) if re.match(r"(?:sudo )?egressproxy [a-z]", span)]
    assert named
    for words in named:
        rest = words[words.index("egressproxy") + 1 :]
        path = next(
            (p for size in (2, 1) if (p := " ".join(["egressproxy", *rest[:size]])) in known), ""
        )
        assert path, f"there is no {' '.join(words)}"
        options = {name for each in known[path].params for name in each.opts}
        assert {word for word in rest if word.startswith("--")} <= options


@pytest.mark.parametrize("page", [*PAGES, ALERTS], ids=lambda page: page.name)
def test_requirements_that_are_named_exist(page: Path) -> None:
    known = {requirement.id for requirement in load_catalog().requirements}
    assert {span for span in spans(page) if re.fullmatch(r"aks/[a-z-]+", span)} <= known


@pytest.mark.parametrize("page", [*PAGES, ALERTS], ids=lambda page: page.name)
def test_limits_that_are_named_are_settings(page: Path) -> None:
    known = {limit.name for limit in fields(Settings)}
    limits = {s for s in spans(page) if re.fullmatch(r"(?:max|log|dns)_[a-z_]+|[a-z_]+_s", s)}
    assert limits <= known | up_names() | set(PARAMETERS)


def test_reasons_that_are_named_exist() -> None:
    text = ON_CALL.read_text()
    named = set(re.findall(r"`(\w+_(?:deny|failed|timeout|rule|global))`", text)) - {"would_deny"}
    assert named
    assert named <= {str(reason) for reason in Reason}


@pytest.mark.parametrize("code", ["50", "51", "52", "53", "31", "41", "65", "124", "9, 99"])
def test_exit_codes_have_their_source(code: str) -> None:
    (row,) = [line for line in ON_CALL.read_text().splitlines() if line.startswith(f"| {code} |")]
    assert re.search(r"\(https://(?:learn\.microsoft\.com|github\.com/Azure)/", row)


def test_the_route_table_is_attached_last_and_detached_first() -> None:
    deploying = DEPLOYING.read_text()
    attach = deploying.index("stage=routes")
    assert deploying.index("stage=gateway") < deploying.index("doctor --config") < attach
    assert attach < deploying.index("stage=clusters")
    for page in PAGES:
        text = page.read_text()
        section = text[text.rindex("## Backing out") :]
        assert section.index("--route-table null") < section.index("egressproxy down")


def test_they_are_linked_where_people_begin() -> None:
    for name in ("README.md", "docs/operations.md"):
        text = (ROOT / name).read_text()
        assert "deploy/README.md)" in text, name
        assert "on-call.md)" in text, name


_REVIEW: Final = re.compile(r"^sudo (egressproxy (?:denies|flows)\b[^#\n]*)", re.MULTILINE)


def test_the_questions_to_the_records_are_answered(tmp_path: Path) -> None:
    """As they are written, of a log in place of the store, and of a policy that is there."""
    record = FlowRecord(
        time.time(), "f", 1, Action.DENY, Reason.DEFAULT_DENY, Plane.TRANSPARENT, "tls", NODE, 443
    )
    error = record._replace(action=Action.ERROR, reason=Reason.DIAL_TIMEOUT, name="b.example")
    log, policy = tmp_path / "flows.jsonl", tmp_path / "policy.yaml"
    denied = record._replace(name="mcr.microsoft.com", dst_ip="192.0.2.1")
    log.write_bytes(b"".join(map(to_json_line, (denied, error))))
    policy.write_text("version: 1\ncloud: AzureCloud\nrules: [{to: [a.test], ports: [https]}]\n")
    questions = _REVIEW.findall(ON_CALL.read_text())
    assert len(questions) >= 2
    for question in questions:
        _, *words = question.replace("/etc/egressproxy/policy.yaml", str(policy)).split()
        done = CliRunner().invoke(cli, [*words, "--log", str(log)])
        assert done.exit_code == 0, done.output
        wanted = "mcr.microsoft.com" if words[0] == "denies" else "b.example"
        assert wanted in done.output, question

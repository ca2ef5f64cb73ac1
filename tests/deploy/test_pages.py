"""deploy/README.md and docs/on-call.md, beyond what tests/test_docs.py holds of every page."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Final

import pytest

from egressproxy.catalog import load_catalog
from egressproxy.catalog.parameters import PARAMETERS
from egressproxy.observe.record import FlowRecord, Plane, to_json_line
from egressproxy.policy.verdict import Action, Reason
from egressproxy.settings import Settings
from tests import reference
from tests.deploy.up_names import up_names

ROOT: Final = Path(__file__).parents[2]
DEPLOYING: Final = ROOT / "deploy" / "README.md"
ON_CALL: Final = ROOT / "docs" / "on-call.md"
PAGES: Final = (DEPLOYING, ON_CALL)
_SPAN: Final = re.compile(r"`([^`\n]+)`")
_FENCE: Final = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def spans(page: Path) -> list[str]:
    """What is in backticks in its prose."""
    return _SPAN.findall(_FENCE.sub("", page.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_requirements_that_are_named_exist(page: Path) -> None:
    known = {requirement.id for requirement in load_catalog().requirements}
    assert {span for span in spans(page) if re.fullmatch(r"aks/[a-z-]+", span)} <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
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


def test_the_summary_of_the_first_five_minutes_counts(tmp_path: Path) -> None:
    jq = shutil.which("jq")
    if jq is None:
        pytest.skip("needs jq")
    text = ON_CALL.read_text()
    command = text[text.index("sudo tail -n 20000") : text.index("| head -20")]
    command = command.replace("sudo ", "").replace("/var/log/egressproxy/", f"{tmp_path}/")
    record = FlowRecord(
        0.0, "f", 1, Action.DENY, Reason.DEFAULT_DENY, Plane.TRANSPARENT, "tls", "10.1.0.4", 443
    )
    records = (
        record._replace(name="a.example", dst_ip="192.0.2.1"),
        record._replace(name="a.example", count=2),
        record._replace(dst_ip="192.0.2.1", action=Action.ERROR, reason=Reason.DIAL_TIMEOUT),
        record._replace(name="b.example", action=Action.ALLOW),
    )
    (tmp_path / "flows.jsonl").write_bytes(b"".join(map(to_json_line, records)))
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    rows = [line.rstrip("\t").split("\t") for line in done.stdout.splitlines()]
    assert rows == [
        ["3", "deny", "a.example", "tls:443", "default_deny"],
        ["1", "error", "192.0.2.1", "tls:443", "dial_timeout"],
    ]

from __future__ import annotations

import json
from pathlib import Path

import pytest

from egressproxy.cli.lint_page import as_object, finding_line, summary
from egressproxy.policy.lint import Code, Finding
from egressproxy.policy.rules import Origin

FILE = Path("policy.yaml")
OF_A_RULE = Finding(Code.BY_ADDRESS, "what", "do", "rules/a", Origin("team.yaml", 7, 5))
OF_THE_POLICY = Finding(Code.UNUSED_GROUP, "what", "do")
ACCEPTED = Finding(Code.EXPIRED, "what", "do", "rules/b", Origin("team.yaml", 9), accepted=True)


@pytest.mark.parametrize(
    ("finding", "line"),
    [
        (OF_A_RULE, "team.yaml:7: warning: rules/a: what, hint: do [by-address]"),
        (OF_THE_POLICY, "policy.yaml: info: what, hint: do [unused-group]"),
        (ACCEPTED, "team.yaml:9: accepted: rules/b: what, hint: do [expired]"),
    ],
)
def test_lines_begin_with_a_file(finding: Finding, line: str) -> None:
    assert finding_line(finding, FILE) == line


@pytest.mark.parametrize(
    ("findings", "text"),
    [
        ([], "nothing found"),
        ([OF_A_RULE], "1 warning"),
        ([OF_THE_POLICY, OF_A_RULE, ACCEPTED, OF_A_RULE], "2 warnings, 1 info, 1 accepted"),
        ([OF_THE_POLICY, OF_THE_POLICY], "2 info"),
    ],
)
def test_summary(findings: list[Finding], text: str) -> None:
    assert summary(findings) == text


def test_json_has_every_key_always() -> None:
    shown = json.loads(json.dumps(as_object(FILE, [OF_A_RULE, OF_THE_POLICY, ACCEPTED])))
    assert {key: shown[key] for key in ("file", "warnings", "infos", "accepted")} == {
        "file": "policy.yaml",
        "warnings": 1,
        "infos": 1,
        "accepted": 1,
    }
    assert shown["findings"][0] == {
        "code": "by-address",
        "severity": "warning",
        "accepted": False,
        "rule": "rules/a",
        "file": "team.yaml",
        "line": 7,
        "column": 5,
        "text": "what",
        "hint": "do",
    }
    assert shown["findings"][1]["rule"] is shown["findings"][1]["line"] is None
    assert shown["findings"][2]["accepted"] is True
    assert len({tuple(finding) for finding in shown["findings"]}) == 1

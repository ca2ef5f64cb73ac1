from __future__ import annotations

import pytest

from egressproxy.policy.lint_finding import Code, Finding, Severity, named
from tests.policy.building import rule


def test_a_finding_of_a_rule_reads_as_one_line() -> None:
    finding = Finding.of(rule("rules/a", "a.test"), Code.REDUNDANT, "what it is", "what to do")
    line = "policy.yaml:7: warning: rules/a: what it is, hint: what to do [redundant]"
    assert str(finding) == line


def test_a_finding_of_the_policy_has_no_place() -> None:
    finding = Finding(Code.UNUSED_GROUP, "what it is", "what to do")
    assert str(finding) == "info: what it is, hint: what to do [unused-group]"


def test_an_accepted_finding_says_so_and_fails_nothing() -> None:
    finding = Finding(Code.REDUNDANT, "what it is", "what to do", accepted=True)
    assert str(finding).startswith("accepted: ")
    assert finding.severity is Severity.WARNING
    assert not finding.fails


@pytest.mark.parametrize("code", Code)
def test_warnings_fail_and_infos_do_not(code: Code) -> None:
    finding = Finding(code, "", "")
    assert finding.fails is (finding.severity is Severity.WARNING)


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (["a", "b", "c", "d"], "a, b, c and 1 more"),
        (list("abcdefg"), "a, b, c and 4 more"),
    ],
)
def test_named(items: list[str], text: str) -> None:
    assert named(items) == text

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from egressproxy.policy.lint_accept import accept
from egressproxy.policy.lint_finding import Code, Finding
from tests.policy.building import policy, rule

A = rule("a", "a.test")
B = rule("b", "b.test")
ROWS = tuple(
    replace(rule(f"aks/core#{row}@1", "a.test"), requirement="aks/core") for row in ("x", "y")
)


def finding(rule_id: str | None, code: Code = Code.BY_ADDRESS) -> Finding:
    return Finding(code, "what", "hint", rule_id)


def marked(found: list[Finding], *rules: Any, **more: Any) -> list[tuple[str, str, bool]]:
    return [
        (str(one.code), one.rule_id or "", one.accepted)
        for one in accept(policy(*rules, **more), found)
    ]


BY_ADDRESS, EXPIRED, UNUSED = Code.BY_ADDRESS, Code.EXPIRED, Code.UNUSED_ACCEPT


def test_nothing_is_accepted_unasked() -> None:
    assert marked([finding("a"), finding(None)], A) == [
        ("by-address", "a", False),
        ("by-address", "", False),
    ]


def test_a_rule_accepts_its_own() -> None:
    found = [finding("a"), finding("a", EXPIRED), finding("b")]
    assert marked(found, replace(A, accept=(BY_ADDRESS,)), B) == [
        ("by-address", "a", True),
        ("expired", "a", False),
        ("by-address", "b", False),
    ]


def test_the_policy_accepts_for_all() -> None:
    found = [finding("a"), finding(None), finding("b", EXPIRED)]
    assert marked(found, A, B, accept=(BY_ADDRESS,)) == [
        ("by-address", "a", True),
        ("by-address", "", True),
        ("expired", "b", False),
    ]


def test_a_requirement_accepts_for_its_rows() -> None:
    rows = [replace(row, accept=(BY_ADDRESS,)) for row in ROWS]
    assert marked([finding(rows[1].id)], *rows) == [("by-address", rows[1].id, True)]


@pytest.mark.parametrize("rows", [1, 2])
def test_what_accepts_nothing_is_told_once(rows: int) -> None:
    accepting = [replace(row, accept=(EXPIRED,)) for row in ROWS[:rows]]
    assert marked([], *accepting) == [("unused-accept", ROWS[0].id, False)]


def test_what_the_policy_accepts_in_vain() -> None:
    assert marked([], A, accept=(EXPIRED,)) == [("unused-accept", "", False)]


def test_a_rule_wins_over_the_policy_which_is_then_in_vain() -> None:
    found = marked([finding("a")], replace(A, accept=(BY_ADDRESS,)), accept=(BY_ADDRESS,))
    assert found == [("by-address", "a", True), ("unused-accept", "", False)]


def test_what_is_accepted_in_vain_can_be_accepted_too() -> None:
    found = marked([], replace(A, accept=(EXPIRED,)), accept=(UNUSED, BY_ADDRESS))
    assert found == [("unused-accept", "", True), ("unused-accept", "a", True)]

"""The use of rules, and what is not said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from egressproxy.observe.record import Plane
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.rules import Policy, Rule
from egressproxy.policy.verdict import Action, Pass, Reason
from egressproxy.review.history import RuleHistory
from egressproxy.review.history import Use as Recorded
from egressproxy.review.unused import Use, Uses, rule_uses
from tests.policy.building import NOON, YESTERDAY, policy, rule
from tests.review.subjects import allowed, counted, subject

DAY = 86400.0
HISTORY = RuleHistory(
    since=NOON - 30 * DAY,
    first_at=NOON - 60 * DAY,
    by_rule={},
    counts=(counted(allowed("z.example", rule="rules/z")),),
    allows=frozenset({"all"}),
)
APP = rule("rules/a", "a.example")
NET = rule("rules/net", "20.9.0.0/16", ports="tcp:1433")
DENY = rule("rules/no", "bad.example", action=Action.DENY)


def uses(here: Policy, **history: Any) -> Uses:
    return rule_uses(here, compile_policy(here), replace(HISTORY, **history), NOON)


def one(rule: Any, **history: Any) -> tuple[Use, str]:
    (found,) = uses(policy(rule), **history).rules
    return found.use, found.why


def counts(*subjects: Any) -> dict[str, Any]:
    return {"counts": tuple(counted(each, 3) for each in subjects)}


USED: dict[str, tuple[Rule, dict[str, Any]]] = {
    "recorded with its id": (APP, {"by_rule": {"rules/a": Recorded(5, 0, NOON)}}),
    "counted by the kernel": (NET, {"by_rule": {"rules/net": Recorded(0, 9, NOON)}}),
    "renamed since": (APP, counts(allowed("a.example", rule="rules/old-name"))),
    "it would have decided": (APP, counts(subject("a.example"))),
    "a deny that denied": (DENY, counts(subject("bad.example", reason=Reason.RULE))),
    "what it allowed failed": (
        APP,
        {"by_rule": {"rules/a": Recorded(5, 0, NOON)}, **counts(subject(action=Action.ERROR))},
    ),
    "by address": (
        NET,
        counts(
            allowed(
                None,
                protocol="tcp",
                dst_port=1433,
                dst_ip="20.9.1.1",
                plane=Plane.NETWORK,
                decided_by=Pass.NETWORK,
            )
        ),
    ),
}


@pytest.mark.parametrize("case", USED)
def test_used(case: str) -> None:
    here, history = USED[case]
    assert one(here, **history) == (Use.USED, "")


def test_an_id_that_is_a_place_is_no_name() -> None:
    """What was rule 3 then may be another one."""
    here = rule("rules/#3", "a.example")
    assert one(here, by_rule={"rules/#3": Recorded(5, 0, NOON)}) == (Use.UNUSED, "")
    assert one(here, **counts(subject("a.example")))[0] is Use.USED


UNUSED: dict[str, tuple[Rule, dict[str, Any], str]] = {
    "nothing went there": (APP, {}, ""),
    "a deny that denied nothing": (DENY, {"allows": frozenset({"none"})}, ""),
    "expired": (rule("rules/a", "a.example", until=YESTERDAY), {}, "expired on 2026-06-14"),
    "nobody's": (rule("rules/a", "a.example", sources=()), {}, "its sources are nobody"),
    "by address, where the kernel counts others": (
        NET,
        {"allows": frozenset({"none"}), "by_rule": {"rules/x": Recorded(0, 9, NOON)}},
        "",
    ),
    "by address, the policy changed": (
        NET,
        {
            "allows": frozenset({"none"}),
            "by_rule": {"rules/x": Recorded(0, 9, NOON)},
            "changed_at": NOON - DAY,
        },
        "the policy changed meanwhile: it may be younger than that",
    ),
    "from logs": (APP, {"allows": frozenset()}, ""),
}


@pytest.mark.parametrize("case", UNUSED)
def test_unused(case: str) -> None:
    here, history, why = UNUSED[case]
    assert one(here, **history) == (Use.UNUSED, why)


UNKNOWN: dict[str, tuple[Rule, dict[str, Any], str]] = {
    "allows are not recorded": (APP, {"allows": frozenset({"none"})}, "allows are not recorded"),
    "not all the time": (APP, {"allows": frozenset({"none", "all"})}, "allows are not recorded"),
    "a sample": (APP, {"allows": frozenset({"1/100"})}, "in part (1/100)"),
    "logs without allows": (
        APP,
        {"allows": frozenset(), **counts(subject("z.example"))},
        "no allow is recorded",
    ),
    "by address, nobody counts": (NET, {"allows": frozenset({"none"})}, "allows are not recorded"),
    "an empty store": (DENY, {"first_at": None, "counts": ()}, "nothing is recorded"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown(case: str) -> None:
    here, history, why = UNKNOWN[case]
    found = one(here, **history)
    assert found[0] is Use.UNKNOWN
    assert why in found[1]


def test_a_requirement_is_used_where_one_row_is() -> None:
    rows = [rule(f"mcr#{n}", f"{n}.mcr.example", requirement="mcr") for n in ("a", "b")]
    idle = rule("acr#a", "acr.example", requirement="acr")
    found = uses(policy(APP, *rows, idle), **counts(subject("a.mcr.example")))
    assert [(each.requirement, each.use) for each in found.requirements] == [
        ("mcr", Use.USED),
        ("acr", Use.UNUSED),
    ]
    assert [row.use for row in found.requirements[0].rows] == [Use.USED, Use.UNUSED]
    assert [each.rule.id for each in found.written] == ["rules/a"]


def test_how_often_and_when_last() -> None:
    history = {"by_rule": {"rules/a": Recorded(9, 4, NOON - DAY)}, **counts(subject("a.example"))}
    (found,) = uses(policy(APP), **history).rules
    assert (found.flows, found.packets, found.last_at) == (9, 4, NOON)


@pytest.mark.parametrize(
    ("history", "days", "remark"),
    [
        ({}, 30, None),
        ({"first_at": NOON - 3 * DAY}, 3, "records go back 3.0 of 30 days"),
        ({"first_at": NOON - DAY / 8}, 0.125, "records go back less than one of 30 days"),
        ({"first_at": None}, 0, "nothing is recorded"),
        ({"allows": frozenset()}, 30, "nobody says whether every allow was recorded"),
    ],
)
def test_how_much_history_there_is(history: Any, days: float, remark: str | None) -> None:
    found = uses(policy(APP), **history)
    assert found.days == days
    assert [remark in each for each in found.remarks if remark] == ([True] if remark else [])

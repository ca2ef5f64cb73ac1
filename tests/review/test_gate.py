"""What a reload would newly deny, from a real store."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from egressproxy.policy.compile import compile_policy
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review import gate
from egressproxy.review.bounds import Bounds
from egressproxy.review.gate import newly_denied
from egressproxy.review.writer import Writer
from tests.policy.building import NOON, policy, rule
from tests.review.subjects import record

if TYPE_CHECKING:
    from egressproxy.review.store import Store

HOUR = 3600.0
A, B = rule("a", "a.example"), rule("b", "b.example")


@pytest.fixture
def filled(store: Store) -> Store:
    denied: dict[str, Any] = {"action": Action.DENY, "reason": Reason.DEFAULT_DENY, "rule": None}
    audited: dict[str, Any] = {"reason": Reason.DEFAULT_DENY, "rule": None, "would_deny": True}
    Writer(store, gateway="hub", bounds=Bounds()).add(
        [
            *[record("a.example")] * 5,
            *[record("b.example", NOON - 20 * HOUR)] * 3,
            record("old.example", NOON - 50 * HOUR),
            record("c.example", **denied),
            record("d.example", **audited),
            record("e.example", action=Action.ERROR, reason=Reason.DIAL_FAILED),
        ]
    )
    return store


def test_what_was_let_through_in_the_last_day(filled: Store) -> None:
    found = newly_denied(filled, compile_policy(policy(A)), now=NOON)
    assert {(one.target, one.count) for one in found.changes} == {
        ("b.example", 3),
        ("d.example", 1),
    }
    assert (found.flows, found.targets, found.is_complete) == (4, 2, True)
    assert str(found) == "4 of 10 flows: b.example:443 (3), d.example:443 (1)"


def test_only_the_flows_of_the_gateway_that_asks(filled: Store) -> None:
    Writer(filled, gateway="other", bounds=Bounds()).add([record("f.example")] * 7)
    new = compile_policy(policy(A))
    assert newly_denied(filled, new, now=NOON, gateways=("hub",)).flows == 4
    assert newly_denied(filled, new, now=NOON, gateways=("other",)).flows == 7
    assert newly_denied(filled, new, now=NOON).flows == 11


def test_nothing(filled: Store) -> None:
    wide = rule("all", "a.example", "b.example", "d.example")
    found = newly_denied(filled, compile_policy(policy(wide)), now=NOON)
    assert (found.flows, str(found)) == (0, "none of 10 flows")


def test_a_longer_span(filled: Store) -> None:
    ruleset = compile_policy(policy(A, B))
    found = newly_denied(filled, ruleset, now=NOON, span_s=72 * HOUR)
    assert {one.target for one in found.changes} == {"old.example", "d.example"}


def test_what_the_policy_in_force_denies_by_now_is_not_new(filled: Store) -> None:
    old, new = compile_policy(policy(A)), compile_policy(policy(rule("z", "z.example")))
    found = newly_denied(filled, new, now=NOON, old=old)
    assert [one.target for one in found.changes] == ["a.example"]


def test_time_is_bounded_and_the_answer_says_so(
    filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_LOOKS", 1)
    clock = count()
    found = newly_denied(
        filled, compile_policy(policy()), now=NOON, budget_s=2, clock=lambda: next(clock)
    )
    assert (found.is_complete, found.is_late) == (False, True)
    assert [one.target for one in found.changes] == ["a.example", "b.example"]


def test_an_empty_store(store: Store) -> None:
    found = newly_denied(store, compile_policy(policy()), now=NOON)
    assert (found.flows, found.replayed, found.is_complete) == (0, 0, True)
    assert not found.is_late

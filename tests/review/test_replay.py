"""Recorded flows under another policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.policy.compile import compile_policy
from egressproxy.policy.rules import Mode
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review.judging import Outcome, Unjudged
from egressproxy.review.replay import MAX_SAMPLE, replay
from tests.policy.building import NOON, policy, rule
from tests.review.subjects import allowed, counted, subject

if TYPE_CHECKING:
    from egressproxy.policy.rules import Rule
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.review.model import SubjectCount


def ruleset(*rules: Rule, mode: Mode = Mode.ENFORCE) -> Ruleset:
    return compile_policy(policy(*rules, mode=mode))


A, B = rule("a", "a.example"), rule("b", "b.example")
DAY = (
    counted(allowed("a.example"), 5),
    counted(subject("b.example"), 3),
    counted(subject("c.example"), 2),
)


def test_compared_with_what_was_recorded() -> None:
    found = replay(DAY, None, ruleset(B), NOON)
    assert [(one.target, one.count, one.before, one.after) for one in found.newly_allowed] == [
        ("b.example", 3, Outcome.DENY, Outcome.ALLOW)
    ]
    (denied,) = found.newly_denied
    assert (denied.target, denied.count, denied.old_rule) == ("a.example", 5, "rules/a")
    assert (denied.rule, denied.reason) == (None, Reason.DEFAULT_DENY)
    assert (found.unchanged_allowed, found.unchanged_denied) == (0, 2)
    assert not found.newly_audited
    assert found.flows == 10


def test_compared_with_another_policy() -> None:
    """What was recorded under a third one does not count."""
    found = replay(DAY, ruleset(A, B), ruleset(A), NOON)
    assert not found.newly_allowed
    (denied,) = found.newly_denied
    assert (denied.target, denied.old_rule) == ("b.example", "b")
    assert (found.unchanged_allowed, found.unchanged_denied) == (5, 2)


def test_the_same_policy_changes_nothing() -> None:
    found = replay(DAY, ruleset(A), ruleset(A), NOON)
    assert found.unchanged_allowed + found.unchanged_denied == found.flows


def test_audit_that_ends_denies_what_it_let_pass() -> None:
    passed = counted(allowed("c.example", would_deny=True, reason=Reason.DEFAULT_DENY), 4)
    found = replay([passed], None, ruleset(A), NOON)
    (change,) = found.newly_denied
    assert (change.before, change.after) == (Outcome.AUDIT, Outcome.DENY)


def test_audit_that_begins_lets_pass_what_was_denied() -> None:
    found = replay(DAY, None, ruleset(A, mode=Mode.AUDIT), NOON)
    assert {one.after for one in found.newly_allowed} == {Outcome.AUDIT}
    assert found.newly_allowed_flows == 5


def test_what_audit_alone_lets_pass_now_is_no_deny() -> None:
    found = replay(DAY, None, ruleset(B, mode=Mode.AUDIT), NOON)
    assert not found.newly_denied
    assert [(one.target, one.after) for one in found.newly_audited] == [
        ("a.example", Outcome.AUDIT)
    ]
    assert found.newly_audited_flows == 5


def test_a_rule_in_audit_is_allowed_when_it_counts() -> None:
    passed = counted(allowed("c.example", would_deny=True, reason=Reason.DEFAULT_DENY), 4)
    found = replay([passed], None, ruleset(rule("c", "c.example"), mode=Mode.AUDIT), NOON)
    assert [(one.before, one.after) for one in found.newly_allowed] == [
        (Outcome.AUDIT, Outcome.ALLOW)
    ]


def test_what_cannot_be_judged_is_counted_apart() -> None:
    day = (
        counted(subject(None, is_overflow=True), 7),
        counted(subject("b.example", action=Action.ERROR, reason=Reason.RESOLVE_FAILED), 5),
        counted(subject("b.example", reason=Reason.LIMIT_SOURCE), 3),
        counted(subject("b.example", reason=Reason.FORBIDDEN_ADDRESS), 2),
        counted(subject("\x1b[31m"), 1),
    )
    found = replay(day, None, ruleset(B), NOON)
    assert found.unjudged == (
        (Unjudged.OVERFLOW, 7),
        (Unjudged.FAILED, 5),
        (Unjudged.LIMIT, 3),
        (Unjudged.TURNS_ON_MORE, 2),
        (Unjudged.UNREADABLE, 1),
    )
    assert found.flows == found.unjudged_flows == 18


def test_a_guarded_name_that_is_denied_too_is_unchanged() -> None:
    one = counted(subject("b.example", reason=Reason.FORBIDDEN_ADDRESS), 2)
    assert replay([one], ruleset(B), ruleset(), NOON).unchanged_denied == 2


def test_one_change_for_a_target_and_port_from_many() -> None:
    day = [counted(subject("b.example", src_ip=f"10.240.0.{i}"), i, at=NOON + i) for i in range(20)]
    (change,) = replay(day, None, ruleset(B), NOON).newly_allowed
    assert (change.count, change.source_count, len(change.sources)) == (190, 20, MAX_SAMPLE)
    assert change.sources[0] == "10.240.0.19"
    assert (change.first_at, change.last_at) == (NOON - 3600, NOON + 19)
    assert len(change.subjects) == 20


def test_the_commonest_first() -> None:
    day = [counted(subject(f"{name}.b.example"), n) for n, name in enumerate("xyz", 1)]
    found = replay(day, None, ruleset(rule("b", "*.b.example")), NOON)
    assert [one.target for one in found.newly_allowed] == [
        "z.b.example",
        "y.b.example",
        "x.b.example",
    ]


NAMES = ("a.example", "b.example", "c.example", "x.c.example", None)
SUBJECTS = st.builds(
    lambda name, was_allowed, port, reason, count: counted(
        (allowed if was_allowed else subject)(name, dst_port=port, reason=reason), count
    ),
    st.sampled_from(NAMES),
    st.booleans(),
    st.sampled_from([80, 443]),
    st.sampled_from([Reason.RULE, Reason.NO_SNI, Reason.MALFORMED_HELLO, Reason.LIMIT_GLOBAL]),
    st.integers(1, 9),
)
RULES = st.lists(
    st.builds(
        lambda to, action: rule(to, to, action=action),
        st.sampled_from(["a.example", "b.example", "*.c.example"]),
        st.sampled_from([Action.ALLOW, Action.DENY]),
    ),
    max_size=3,
)


@given(st.lists(SUBJECTS, max_size=12), RULES, RULES)
def test_every_flow_is_counted_once_and_replay_backwards_is_its_mirror(
    day: list[SubjectCount], before: list[Rule], after: list[Rule]
) -> None:
    old, new = ruleset(*before), ruleset(*after)
    there, back = replay(day, old, new, NOON), replay(day, new, old, NOON)
    assert there.flows == back.flows == sum(one.count for one in day)
    assert {(one.target, one.port, one.count) for one in there.newly_allowed} == {
        (one.target, one.port, one.count) for one in back.newly_denied
    }
    assert there.unjudged == back.unjudged


@pytest.mark.parametrize("old", [None, ruleset(A)])
def test_nothing_recorded(old: Ruleset | None) -> None:
    assert replay([], old, ruleset(B), NOON).flows == 0

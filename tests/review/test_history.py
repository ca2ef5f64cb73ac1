"""What a store tells of the use of rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.policy.verdict import Action, Reason
from egressproxy.review.bounds import Bounds
from egressproxy.review.history import Use, rule_history
from egressproxy.review.writer import Writer
from tests.policy.building import NOON
from tests.review.subjects import record

if TYPE_CHECKING:
    from egressproxy.review.store import Store

DAY = 86400.0
WEEK_AGO = NOON - 7 * DAY


@pytest.fixture
def writer(store: Store) -> Writer:
    return Writer(store, gateway="hub", bounds=Bounds())


def test_flows_and_packets_by_rule(store: Store, writer: Writer) -> None:
    writer.add(
        [
            *[record("a.example", NOON - DAY)] * 3,
            record("b.example", NOON - 2 * DAY, rule="rules/b"),
            record("c.example", NOON - 20 * DAY, rule="rules/c"),
            record("d.example", action=Action.DENY, reason=Reason.DEFAULT_DENY, rule=None),
        ]
    )
    writer.note_rule_hits({"rules/b": 40, "rules/net": 7, "rules/none": 0}, at=NOON - DAY)
    writer.note_rule_hits({"rules/old": 9}, at=NOON - 20 * DAY)
    found = rule_history(store, since=WEEK_AGO)
    assert {rule: (use.flows, use.packets) for rule, use in found.by_rule.items()} == {
        "a": (3, 0),
        "rules/b": (1, 40),
        "rules/net": (0, 7),
    }
    assert found.by_rule["a"] == Use(3, 0, NOON - DAY)
    assert found.first_at == NOON - 20 * DAY
    assert {each.subject.name for each in found.counts} == {"a.example", "b.example", "d.example"}


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ([], set()),
        ([(-30, "all")], {"all"}),
        ([(-30, "none"), (-20, "all")], {"all"}),
        ([(-30, "none"), (-2, "all")], {"none", "all"}),
        ([(-2, "1/100")], {"1/100"}),
    ],
)
def test_how_allows_were_recorded(
    store: Store, writer: Writer, said: list[tuple[int, str]], wanted: set[str]
) -> None:
    for days, allows in said:
        writer.note_recording(since=NOON + days * DAY, allows=allows)
    assert rule_history(store, since=WEEK_AGO).allows == wanted


def test_when_the_policy_changed(store: Store, writer: Writer) -> None:
    for days, outcome, digest in (
        (-20, "applied", "b"),
        (-3, "applied", "c"),
        (-2, "unchanged", "a"),
        (-1, "refused", "d"),
    ):
        writer.note_reload(
            at=NOON + days * DAY, outcome=outcome, digest=digest, previous="a", report="{}"
        )
    assert rule_history(store, since=WEEK_AGO).changed_at == NOON - 3 * DAY


def test_an_empty_store(store: Store) -> None:
    found = rule_history(store, since=WEEK_AGO)
    assert (found.first_at, found.by_rule, found.counts, found.changed_at) == (None, {}, (), None)

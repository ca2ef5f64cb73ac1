"""Plans: how far each draft goes, and what becomes of those that go too far."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from egressproxy.observe.record import NameSource, Plane
from egressproxy.policy.compile import compile_policy
from egressproxy.ports import parse_ports
from egressproxy.review.eligible import Limits, sort_denied
from egressproxy.review.planning import Planner, settle, span_of
from egressproxy.review.suggestion import Kind
from tests.policy.building import NOON, policy
from tests.review.subjects import Told, counted, subject

NETWORK = {"plane": Plane.NETWORK, "protocol": "tcp", "name_source": NameSource.DNS}
HASHES = ("a3f9c04e", "7f9d41b2", "deadbeef00")


def planner(*day: Any, **classes: Any) -> Planner:
    here = policy()
    ruleset = compile_policy(here)
    return Planner(
        sort_denied(day, here, ruleset, Told(**classes), Limits(), NOON), here, ruleset, NOON
    )


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, "tls:443"),
        ({"dst_port": 80, "protocol": "http"}, "http:80"),
        ({"dst_port": 443, **NETWORK}, "tls:443"),
        ({"dst_port": 80, **NETWORK}, "http:80"),
        ({"dst_port": 5432, **NETWORK}, "tcp:5432"),
        ({"dst_port": 123, **NETWORK, "protocol": "udp"}, "udp:123"),
        ({"name": None}, "tcp:443"),
        ({"name": None, "dst_port": 22, **NETWORK}, "tcp:22"),
    ],
)
def test_the_port_item_of_a_flow(fields: dict[str, Any], wanted: str) -> None:
    assert span_of(subject(**fields)) == parse_ports(wanted)


def test_a_trial_says_what_each_draft_opens() -> None:
    one = planner(counted(subject("a.example"), 2), counted(subject("b.example"), 3))
    plan = one.plan(Counter())
    assert one.trial(plan) == set()
    assert {name: sum(c.count for c in counts) for name, counts in plan.opened.items()} == {
        "a.example": 2,
        "b.example": 3,
    }


def test_a_trial_says_what_goes_too_far() -> None:
    day = [counted(subject(f"{h}.a.example"), 2) for h in HASHES]
    bad = counted(subject("0badcafe.a.example"))
    one = planner(*day, bad, suspicious=("0badcafe.a.example",))
    plan = one.plan(Counter())
    assert [draft.kind for draft in plan.drafts] == [Kind.WILDCARD]
    assert one.trial(plan) == {"*.a.example"}
    careful = one.plan(Counter({"*.a.example": 1}))
    assert {draft.kind for draft in careful.drafts} == {Kind.NAME}
    assert one.trial(careful) == set()


def test_care_narrows_and_then_gives_up() -> None:
    one = planner(counted(subject("a.example")))
    free, narrow, none = (one.plan(Counter({"a.example": times})) for times in (0, 1, 2))
    assert free.drafts[0].clients.networks is None
    assert [str(net) for net in narrow.drafts[0].clients.networks or ()] == ["10.240.0.4/32"]
    assert not none.drafts
    assert "must stay denied" in none.dropped[0][1].text


def test_what_opens_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is known; if one came, it must not be offered."""
    monkeypatch.setattr(
        "egressproxy.review.planning.span_of", lambda subject: parse_ports("tls:4443")
    )
    plan = settle(planner(counted(subject("a.example"))))
    assert not plan.drafts
    assert not plan.opened
    assert [each.subject.name for each, _ in plan.dropped] == ["a.example"]

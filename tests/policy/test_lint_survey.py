from __future__ import annotations

import time

from egressproxy.policy.lint_survey import Survey
from tests.policy.building import DENY, NOON, TODAY, YESTERDAY, policy, rule

SOME = policy(
    rule("now", "a.test"),
    rule("over", "b.test", until=YESTERDAY),
    rule("last-day", "c.test", until=TODAY),
    rule("nobody", "d.test", sources=()),
    rule("trial-over", "e.test", audit=True, audit_until=YESTERDAY),
    rule("firm-deny", "f.test", audit=True, audit_until=YESTERDAY, action=DENY),
)


def test_in_force_is_what_counts_now_for_somebody() -> None:
    found = [(number, rule.id) for number, rule in Survey.of(SOME, NOON).in_force()]
    assert found == [(0, "now"), (2, "last-day"), (5, "firm-deny")]


def test_the_clock_where_no_time_is_given() -> None:
    before = time.time()
    assert before <= Survey.of(SOME, None).now <= time.time()

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from egressproxy.policy.lint_dates import date_findings
from egressproxy.policy.rules import Mode
from egressproxy.policy.tag_edition import STALE_DAYS, DatedBy, TagEdition
from tests.policy.building import DENY, NOON, TODAY, YESTERDAY, rule
from tests.policy.linting import texts, told

if TYPE_CHECKING:
    from egressproxy.policy.rules import Rule

DAY = 86400.0
CASES = {
    "for ever": (rule("a", "a.test"), set()),
    "expired": (rule("a", "a.test", until=YESTERDAY), {"expired"}),
    "expired deny": (rule("a", "a.test", until=YESTERDAY, action=DENY), {"expired"}),
    "last day": (rule("a", "a.test", until=TODAY), set()),
    "audit over": (rule("a", "a.test", audit=True, audit_until=YESTERDAY), {"audit-over"}),
    "audit": (rule("a", "a.test", audit=True, audit_until=TODAY), set()),
    "audit for ever": (rule("a", "a.test", audit=True), {"endless-audit"}),
    "audit until it expires": (rule("a", "a.test", audit=True, until=TODAY), set()),
    "expired and audit over": (
        rule("a", "a.test", until=YESTERDAY, audit=True, audit_until=YESTERDAY),
        {"expired"},
    ),
}


@pytest.mark.parametrize(("one", "codes"), CASES.values(), ids=CASES)
def test_rules(one: Rule, codes: set[str]) -> None:
    assert told(date_findings, one) == {(code, "a") for code in codes}


def test_the_policys_own_audit() -> None:
    (text,) = texts(date_findings, mode=Mode.WARN_ON_NEW, warn_until=YESTERDAY)
    assert text.startswith("warn-on-new ended on 2026-06-14: it enforces")
    assert told(date_findings, mode=Mode.WARN_ON_NEW, warn_until=TODAY) == set()
    (text,) = texts(date_findings, mode=Mode.AUDIT, audit_until=YESTERDAY)
    assert text.startswith("audit ended on 2026-06-14: it enforces -> ")
    assert told(date_findings, mode=Mode.AUDIT, audit_until=TODAY) == set()
    assert told(date_findings, mode=Mode.AUDIT) == {("endless-audit", "")}
    assert told(date_findings) == set()


def test_service_tags() -> None:
    fresh = TagEdition(Path("Tags.json"), "Public", 1, NOON - STALE_DAYS * DAY, DatedBy.NAME)
    old = replace(fresh, dated=NOON - (STALE_DAYS + 1) * DAY)
    assert told(date_findings, service_tags=fresh) == set()
    assert told(date_findings, service_tags=old) == {("old-tags", "")}
    assert texts(date_findings, service_tags=old)[0].startswith("Tags.json is 29 days old")

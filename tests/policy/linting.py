"""What tests of the lint share: the findings of a family for policies made of rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from egressproxy.policy.lint_survey import Survey
from tests.policy.building import NOON, policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from egressproxy.policy.lint_finding import Finding
    from egressproxy.policy.rules import Rule

    Family = Callable[[Survey], Iterator[Finding]]


def survey(*rules: Rule, **more: Any) -> Survey:
    return Survey.of(policy(*rules, **more), NOON)


def told(family: Family, *rules: Rule, **more: Any) -> set[tuple[str, str]]:
    """(code, rule id) of all findings of a family; every text and hint is one readable line."""
    found = list(family(survey(*rules, **more)))
    for finding in found:
        assert finding.text.isprintable()
        assert finding.hint
        assert not finding.hint.endswith(".")
    return {(str(finding.code), finding.rule_id or "") for finding in found}


def texts(family: Family, *rules: Rule, **more: Any) -> list[str]:
    """``text -> hint`` of all findings."""
    return [f"{found.text} -> {found.hint}" for found in family(survey(*rules, **more))]

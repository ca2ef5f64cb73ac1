"""Whom rules count for: nobody, and groups that no rule names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egressproxy.policy.lint_finding import Code, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.policy.lint_survey import Survey


def source_findings(survey: Survey) -> Iterator[Finding]:
    """Of the policy, then of each rule."""
    policy = survey.policy
    used = {name for rule in policy.rules for name in rule.source_groups}
    for name, _ in policy.sources:
        if name not in used:
            text = f"no rule counts for the source group {name}: it only names clients in records"
            yield Finding(Code.UNUSED_GROUP, text, "name it in a from:, or remove it")
    for rule in policy.rules:
        if rule.sources == ():
            text = "it counts for no client: none of its sources is among those of its include"
            yield Finding.of(rule, Code.NOBODY, text, "widen the include's from:, or remove it")

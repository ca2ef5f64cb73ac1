"""What is over, or never will be: rules, audits, service tags of another month."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egressproxy.policy.lint_finding import Code, Finding
from egressproxy.policy.program import end_of_day
from egressproxy.policy.rules import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.policy.lint_survey import Survey
    from egressproxy.policy.rules import Policy, Rule


def date_findings(survey: Survey) -> Iterator[Finding]:
    """Of the policy, then of each rule."""
    yield from _of_policy(survey.policy, survey.now)
    for rule in survey.policy.rules:
        yield from _of_rule(rule, survey.now)


def _of_policy(policy: Policy, now: float) -> Iterator[Finding]:
    if policy.mode is Mode.AUDIT:
        if policy.audit_until is None:
            yield Finding(Code.ENDLESS_AUDIT, "audit never ends", "set audit_until")
        elif end_of_day(policy.audit_until) <= now:
            text = f"audit ended on {policy.audit_until}: it enforces"
            yield Finding(Code.AUDIT_OVER, text, "set a later audit_until, or mode: enforce")
    elif policy.mode is Mode.WARN_ON_NEW and end_of_day(policy.warn_until) <= now:
        text = f"warn-on-new ended on {policy.warn_until}: it enforces"
        yield Finding(Code.AUDIT_OVER, text, "set a later warn_until, or mode: enforce")
    tags = policy.service_tags
    if tags is not None and tags.is_stale(now):
        text = f"{tags.path.name} is {tags.age_days(now)} days old: addresses may have moved"
        hint = "download this week's; egressproxy tags diff OLD NEW says what it changes here"
        yield Finding(Code.OLD_TAGS, text, hint)


def _of_rule(rule: Rule, now: float) -> Iterator[Finding]:
    if end_of_day(rule.until) <= now:
        text = f"expired on {rule.until}"
        yield Finding.of(rule, Code.EXPIRED, text, "set a later until, or remove it")
    elif rule.audit and rule.audit_until is None and rule.until is None:
        yield Finding.of(rule, Code.ENDLESS_AUDIT, "its audit never ends", "set audit_until")
    elif rule.audit and end_of_day(rule.audit_until) <= now:
        text = f"its audit ended on {rule.audit_until}"
        hint = "set a later audit_until, or remove mode: audit"
        yield Finding.of(rule, Code.AUDIT_OVER, text, hint)

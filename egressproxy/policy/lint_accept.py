"""``accept``: what a policy says of findings that are meant, and where it says so in vain."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from egressproxy.policy.lint_finding import Code, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from egressproxy.policy.rules import Policy, Rule


def accept(policy: Policy, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings, those that are accepted marked, and then each ``accept`` without a finding."""
    accepting = {rule.id: rule for rule in policy.rules if rule.accept}
    used: set[tuple[object, str]] = set()
    for finding in findings:
        rule = accepting.get(finding.rule_id or "")
        by_rule = rule is not None and finding.code in rule.accept
        if rule is not None and by_rule:
            used.add((_place(rule), finding.code))
        elif finding.code in policy.accept:
            used.add((None, finding.code))
        else:
            yield finding
            continue
        yield replace(finding, accepted=True)
    yield from _in_vain(policy, accepting.values(), used)


def _in_vain(
    policy: Policy, accepting: Iterable[Rule], used: set[tuple[object, str]]
) -> Iterator[Finding]:
    is_accepted = Code.UNUSED_ACCEPT in policy.accept
    hint = "remove it from accept"
    for code in policy.accept:
        if (None, code) not in used and code is not Code.UNUSED_ACCEPT:
            text = f"the policy accepts {code}, which is not found"
            yield Finding(Code.UNUSED_ACCEPT, text, hint, accepted=is_accepted)
    for rule in accepting:
        for code in rule.accept:
            if (_place(rule), code) not in used:
                used.add((_place(rule), code))  # told once of a requirement, not of each row
                text = f"{code} is accepted here, and not found"
                finding = Finding.of(rule, Code.UNUSED_ACCEPT, text, hint)
                yield replace(finding, accepted=is_accepted)


def _place(rule: Rule) -> tuple[object, ...]:
    """Where ``accept`` is written: the rows of a requirement share it."""
    listing = rule.id.partition("@")[2] if rule.requirement else rule.id
    return (rule.requirement, listing, rule.origin.file, rule.origin.line)

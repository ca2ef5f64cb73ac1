"""``lint``: what a valid policy does that its author may not mean. Findings change no verdict.

Each family of findings is a module of its own, beside this one. All of them ask a ``Survey``, and
none costs more than the size of the policy: a list of a million names, or 20,000 rules, is linted
in seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.policy.lint_accept import accept
from egressproxy.policy.lint_address import address_findings
from egressproxy.policy.lint_dates import date_findings
from egressproxy.policy.lint_dead import dead_findings
from egressproxy.policy.lint_finding import Code, Finding, Severity
from egressproxy.policy.lint_names import name_findings
from egressproxy.policy.lint_order import order_findings
from egressproxy.policy.lint_sources import source_findings
from egressproxy.policy.lint_survey import Survey

if TYPE_CHECKING:
    from egressproxy.policy.rules import Policy

__all__ = ["Code", "Finding", "Severity", "lint"]

_FAMILIES: Final = (
    date_findings,
    source_findings,
    dead_findings,
    order_findings,
    address_findings,
    name_findings,
)


def lint(policy: Policy, *, now: float | None = None) -> tuple[Finding, ...]:
    """All findings: of the policy, then rule by rule in order of judgement.

    Args:
        policy: a loaded one; it is compiled for this, so a large one takes seconds.
        now: POSIX seconds, by default the clock's.
    """
    survey = Survey.of(policy, now)
    found = (finding for family in _FAMILIES for finding in family(survey))
    places = {rule.id: number for number, rule in enumerate(policy.rules)}
    marked = accept(policy, found)
    return tuple(sorted(marked, key=lambda finding: places.get(finding.rule_id or "", -1)))

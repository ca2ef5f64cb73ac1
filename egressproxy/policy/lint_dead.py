"""Network rules that leave nothing for the application rules at their ports.

Pass 1 is asked first, wherever its rules stand: one that matches every address at a port, allow or
deny, ends it there, and no name is ever asked (of flows that carry an address: a CONNECT does not).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.policy.lint_finding import Code, Finding, named
from egressproxy.policy.lint_ranges import holds, is_everywhere, spans
from egressproxy.policy.verdict import Action
from egressproxy.ports import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.policy.lint_survey import Survey
    from egressproxy.policy.rules import Rule
    from egressproxy.ports import PortSpan

MAX_KILLERS: Final = 64
"""Rules to everywhere that are looked at, of those with other ports and clients than the rest."""


def dead_findings(survey: Survey) -> Iterator[Finding]:
    """Of each network rule in force that decides all that some application rule is for."""
    killers = _killers(survey)
    dead: dict[int, dict[str, None]] = {number: {} for number in killers}
    by_gate: dict[int, list[int]] = {}
    for number, rule in survey.in_force() if killers else ():
        gate = survey.program.gate_of[number]
        if gate not in by_gate:
            by_gate[gate] = [n for n, killer in killers.items() if _kills(killer, rule)]
        for killer_number in by_gate[gate]:
            dead[killer_number][rule.id] = None
    for number, killer in killers.items():
        if dead[number]:
            yield _finding(killer, list(dead[number]))


def _killers(survey: Survey) -> dict[int, Rule]:
    """The network rules to everywhere, one a gate."""
    killers: dict[int, Rule] = {}
    gates: set[int] = set()
    for number, rule in survey.in_force():
        gate = survey.program.gate_of[number]
        if gate in gates or not any(span.protocol is Protocol.TCP for span in rule.ports):
            continue
        if rule.any_destination or is_everywhere(rule.networks):
            killers[number] = rule
            gates.add(gate)
        if len(killers) == MAX_KILLERS:
            break
    return killers


def _kills(killer: Rule, rule: Rule) -> bool:
    """Whether a port of an application rule is decided by address for all of its clients."""
    return any(_takes(killer, span) for span in rule.ports) and _holds_clients(killer, rule)


def _takes(killer: Rule, span: PortSpan) -> bool:
    return span.protocol.is_application and any(
        one.protocol is Protocol.TCP and span.first in one for one in killer.ports
    )


def _holds_clients(killer: Rule, rule: Rule) -> bool:
    if killer.sources is None:
        return True
    return rule.sources is not None and holds(spans(killer.sources), spans(rule.sources))


def _finding(killer: Rule, dead: list[str]) -> Finding:
    ports = named([span for span in killer.ports if span.protocol is Protocol.TCP])
    is_allow = killer.action is Action.ALLOW
    verb = "allows" if is_allow else "denies"
    text = (
        f"it {verb} {ports} to any address before a name is asked:"
        f" {named(dead)} never count{'s' if len(dead) == 1 else ''} there"
    )
    hint = (
        "remove it, and allow names with https; or name the addresses that need it"
        if is_allow
        else "remove it: what no rule allows is denied"
    )
    return Finding.of(killer, Code.DEAD_NAMES, text, hint)

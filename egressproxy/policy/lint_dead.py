"""Network rules that leave nothing for the application rules at their ports.

Pass 1 is asked first, wherever its rules stand: one that matches every address at a port, allow or
deny, ends it there, and no name is ever asked (of flows that carry an address: a CONNECT does not).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.policy.lint_everywhere import is_everywhere
from egressproxy.policy.lint_finding import Code, Finding, named
from egressproxy.policy.spans import AddressSet
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
    dead: list[list[str]] = [[] for _ in killers]
    by_gate: dict[int, list[list[str]]] = {}
    for number, rule in survey.in_force() if killers else ():
        gate = survey.program.gate_of[number]
        if gate not in by_gate:
            kills = zip(killers, dead, strict=True)
            by_gate[gate] = [victims for killer, victims in kills if _kills(killer, rule)]
        for victims in by_gate[gate]:
            victims.append(rule.id)
    for killer, victims in zip(killers, dead, strict=True):
        if victims:
            yield _finding(killer.rule, victims)


@dataclass(frozen=True, slots=True)
class _Killer:
    """A network rule to everywhere; ``clients`` is ``None`` for everyone."""

    rule: Rule
    clients: AddressSet | None


def _killers(survey: Survey) -> list[_Killer]:
    """The network rules to everywhere, one a gate."""
    killers: list[_Killer] = []
    gates: set[int] = set()
    for number, rule in survey.in_force():
        gate = survey.program.gate_of[number]
        if gate in gates or not any(span.protocol is Protocol.TCP for span in rule.ports):
            continue
        if rule.any_destination or is_everywhere(rule.networks):
            clients = None if rule.sources is None else AddressSet.of_networks(rule.sources)
            killers.append(_Killer(rule, clients))
            gates.add(gate)
        if len(killers) == MAX_KILLERS:
            break
    return killers


def _kills(killer: _Killer, rule: Rule) -> bool:
    """Whether a port of an application rule is decided by address, for all of its clients.

    Of an allow, for any of its clients: to deny some everything is often meant.
    """
    if not any(_takes(killer.rule, span) for span in rule.ports):
        return False
    is_allow = killer.rule.action is Action.ALLOW
    if killer.clients is None or (rule.sources is None and is_allow):
        return True
    if rule.sources is None:
        return False
    clients = AddressSet.of_networks(rule.sources)
    return bool(clients & killer.clients) if is_allow else clients <= killer.clients


def _takes(killer: Rule, span: PortSpan) -> bool:
    return span.protocol.is_application and any(
        one.protocol is Protocol.TCP and span.first in one for one in killer.ports
    )


def _finding(killer: Rule, dead: list[str]) -> Finding:
    ports = named([span for span in killer.ports if span.protocol is Protocol.TCP])
    is_allow = killer.action is Action.ALLOW
    text = (
        f"it {'allows' if is_allow else 'denies'} {ports} to any address before a name is asked:"
        f" {named(dead)} never count{'s' if len(dead) == 1 else ''} there"
        f"{'' if killer.sources is None else ' for its clients'}"
    )
    hint = (
        "remove it, and allow names with https; or name the addresses that need it"
        if is_allow
        else "remove it: what no rule allows is denied"
    )
    return Finding.of(killer, Code.DEAD_NAMES, text, hint)

"""``Cover``: which rule decides all of a part of a later one, by the compiled policy's own table.

A part is a pattern, a list, a network or everything, on one span of ports. It is *covered* by an
earlier rule whose own pattern or network holds all of it, for all of its clients and as long as it
counts: such a rule always decides first. Rules are compared by group (all that mention one thing)
and gate (all with the same ports, clients and dates), and what was found of two is remembered, so
the cost grows with the size of a policy and not with the pairs of its rules. What would cost more
is not looked for; nothing is ever said to be covered that is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.policy.program import EVERYONE
from egressproxy.policy.spans import AddressSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from egressproxy.policy.lint_survey import Survey
    from egressproxy.policy.networks import Network
    from egressproxy.policy.rules import NameList, Rule
    from egressproxy.ports import PortSpan

MAX_GATES: Final = 64
"""Gates of a group that are looked at for one that holds another; the same gate is always found."""

MAX_SPANS: Final = 32
"""Port spans of a rule beyond which it is not looked at."""

MAX_ENTRIES: Final = 20_000_000
"""Entries of lists that are looked up in all."""

_Key = tuple[str, int]
_NONE: Final = -1


class Cover:
    """Asked for the rules of a policy in any order."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._program = survey.program
        self._matcher = survey.program.matcher
        self._rules = survey.policy.rules
        self._lists = _users_of_lists(self._rules)
        self._networks = {
            survey.gate(number).sources: rule.sources
            for number, rule in enumerate(self._rules)
            if rule.sources is not None
        }
        self._gates: dict[_Key, dict[int, int]] = {}
        self._firsts: dict[tuple[_Key, int, PortSpan], int] = {}
        self._held: dict[tuple[int, int], bool] = {}
        self._clients: dict[int, AddressSet] = {}
        self._entries_left = MAX_ENTRIES

    def of(self, number: int) -> set[int] | None:
        """The rules that together decide all of a rule before it; ``None`` if something is left."""
        rule = self._rules[number]
        found: set[int] = set()
        if len(rule.ports) > MAX_SPANS:
            return None
        for span in rule.ports:
            for values in self._parts(rule, span):
                first = self._first(values, number, span)
                if first == _NONE:
                    return None
                found.add(first)
            for names in rule.lists:
                if not self._list(names, number, span, found):
                    return None
        return found or None

    def of_name(self, number: int, text: str) -> set[int] | None:
        """The same of one pattern of a rule."""
        values = self._matcher.covering(text)
        return self._of_part(number, values)

    def of_network(self, number: int, network: Network) -> set[int] | None:
        """The same of one network of a rule."""
        return self._of_part(number, self._matcher.holding(network))

    def _of_part(self, number: int, values: list[int]) -> set[int] | None:
        spans = self._rules[number].ports
        if len(spans) > MAX_SPANS:
            return None
        found = {self._first(self._with_anywhere(values, span), number, span) for span in spans}
        return None if _NONE in found else found

    def _parts(self, rule: Rule, span: PortSpan) -> Iterator[list[int]]:
        """What mentions all of each part of a rule but its lists."""
        if rule.any_destination:
            yield self._with_anywhere([], span)
        for pattern in rule.patterns:
            yield self._with_anywhere(self._matcher.covering(str(pattern)), span)
        for network in rule.networks:
            yield self._with_anywhere(self._matcher.holding(network), span)

    def _with_anywhere(self, values: list[int], span: PortSpan) -> list[int]:
        anywhere = self._program.anywhere
        if anywhere is None or span.protocol.is_application:
            return values
        return [*values, anywhere]

    def _list(self, names: NameList, number: int, span: PortSpan, found: set[int]) -> bool:
        """Whether a list is covered, as a whole or each entry of it."""
        place = id(names.entries)
        first = self._first_of(("list", place), self._lists[place], number, span)
        if first != _NONE:
            found.add(first)
            return True
        for entry in names.entries:
            self._entries_left -= 1
            if self._entries_left < 0:
                return False
            values = self._with_anywhere(self._matcher.covering(entry), span)
            first = self._first(values, number, span)
            if first == _NONE:
                return False
            found.add(first)
        return True

    def _first(self, values: Iterable[int], number: int, span: PortSpan) -> int:
        """The first rule before this one that covers a part, in any of these groups."""
        firsts = [
            self._first_of(("group", value), self._matcher.group(value), number, span)
            for value in values
        ]
        return min((first for first in firsts if first != _NONE), default=_NONE)

    def _first_of(self, key: _Key, group: Sequence[int], number: int, span: PortSpan) -> int:
        gate = self._program.gate_of[number]
        asked = (key, gate, span)
        first = self._firsts.get(asked)
        if first is None:
            first = self._firsts[asked] = self._search(self._gates_of(key, group), gate, span)
        return first if first < number else _NONE  # itself is in the group of its own part

    def _gates_of(self, key: _Key, group: Sequence[int]) -> dict[int, int]:
        """The gates of a group, each with the first rule that has it."""
        gates = self._gates.get(key)
        if gates is None:
            gates = self._gates[key] = {}
            for number in group:
                gates.setdefault(self._program.gate_of[number], number)
        return gates

    def _search(self, gates: dict[int, int], gate: int, span: PortSpan) -> int:
        """The first rule whose gate lets through all that this one does."""
        for place, (other, number) in enumerate(gates.items()):
            if place == MAX_GATES:
                break
            if self._covers(other, gate, span):
                return number
        return gates.get(gate, _NONE)

    def _covers(self, outer: int, inner: int, span: PortSpan) -> bool:
        if outer == inner:
            return True
        first, second = self._program.gates[outer], self._program.gates[inner]
        return (
            first.expires >= second.expires
            and any(
                one.protocol is span.protocol and one.first <= span.first and span.last <= one.last
                for one in first.ports
            )
            and self._holds(first.sources, second.sources)
        )

    def _holds(self, outer: int, inner: int) -> bool:
        """Whether every client of one source set is in another."""
        if outer in (EVERYONE, inner):
            return True
        if inner == EVERYONE:
            return False
        key = (outer, inner)
        known = self._held.get(key)
        if known is None:
            known = self._held[key] = self._clients_of(inner) <= self._clients_of(outer)
        return known

    def _clients_of(self, sources: int) -> AddressSet:
        if sources not in self._clients:
            self._clients[sources] = AddressSet.of_networks(self._networks[sources])
        return self._clients[sources]


def _users_of_lists(rules: Sequence[Rule]) -> dict[int, list[int]]:
    """The rules that use a list, by the list."""
    users: dict[int, list[int]] = {}
    for number, rule in enumerate(rules):
        for names in rule.lists:
            users.setdefault(id(names.entries), []).append(number)
    return users

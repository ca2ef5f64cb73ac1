"""``NearIndex``: the near misses of many flows under one policy, without a loop over its rules.

``near_miss`` asks every rule, which is right for one explanation and not for the denies of a day.
Here lookups find the few rules and patterns that can be near, and ``near_miss.Differences`` says
whether they are, and in which words. Less is found than by ``near_misses``: of misspelt names those
with one letter wrong, missing, added or swapped; of lists whole names and ``*.suffix``; and a rule
for any address, or for many, is not near because of its port. For people; it decides nothing.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

from egressproxy.policy.address import pack_address
from egressproxy.policy.lookalike import skeleton
from egressproxy.policy.matcher import AddressUse, text_key
from egressproxy.policy.near_miss import (
    Differences,
    NearMiss,
    apex_of_entry,
    below_entry,
    best_few,
)
from egressproxy.policy.near_name import Kind, parents
from egressproxy.policy.verdict import Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from egressproxy.names import DnsName
    from egressproxy.policy.rules import Policy, Rule
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.policy.verdict import Flow, Verdict

MAX_PATTERNS: Final = 4000
"""Patterns whose misspellings are looked for; some forty texts are kept for each."""
MAX_NAMES: Final = 10_000
"""Denied names for which what means them, or nearly does, is remembered."""
MAX_TAILS: Final = 10_000
"""Suffixes of denied names for which the near patterns are remembered."""
MAX_NETWORKS: Final = 64
"""Networks of a rule that are searched for the one that has an address."""

_PORTS: Final = (Kind.PORT, Kind.PROTOCOL)
_NARROW_BITS: Final = 8  # a /24

_Place = tuple[int, int]  # number of a rule, place of its pattern


class _Known(NamedTuple):
    """Of a name: numbers of the rules that mean it, with their words; patterns that may be near."""

    meant: dict[int, str]
    near: tuple[_Place, ...]


_NAMELESS: Final = _Known({}, ())


class NearIndex:
    """What of a policy a flow's name may nearly be; it remembers. Not for several threads."""

    def __init__(self, policy: Policy, ruleset: Ruleset) -> None:
        """Index a policy; ``ruleset`` is compiled from it."""
        self._policy = policy
        self._rules = policy.rules
        self._matcher = ruleset.program.matcher
        self._suffixes: dict[str, list[_Place]] = {}
        self._texts: dict[str, list[_Place]] = {}
        self._known: dict[str, _Known] = {}
        self._near_tails: dict[str, tuple[_Place, ...]] = {}  # names share what they are below
        # Beyond these no tail of a name is nearly a pattern: clients may ask for a hundred labels.
        self._longest = self._most_dots = 0
        budget = MAX_PATTERNS
        for number, rule in enumerate(policy.rules):
            if rule.action is not Action.ALLOW or rule.any_destination:
                continue
            for place, pattern in enumerate(rule.patterns):
                self._suffixes.setdefault(pattern.suffix, []).append((number, place))
                if budget:
                    budget -= 1
                    self._longest = max(self._longest, len(pattern.suffix))
                    self._most_dots = max(self._most_dots, pattern.suffix.count("."))
                    for text in _variants(pattern.suffix):
                        self._texts.setdefault(text, []).append((number, place))

    def misses(self, flow: Flow, verdict: Verdict, now: float) -> tuple[NearMiss, ...]:
        """The best few, one for each rule, best first; ``now`` is POSIX seconds."""
        differences = Differences(self._policy, flow, verdict, now)
        return best_few(self._find(differences))

    def _find(self, differences: Differences) -> Iterator[NearMiss]:
        flow = differences.flow
        known = self._of_name(flow.name) if flow.name is not None else _NAMELESS
        meant = dict(known.meant)
        for number, text in known.meant.items():
            rule = self._rules[number]
            if rule.action is Action.ALLOW:
                yield from differences.but_the_name(rule, text)
        yield from self._near_address(differences, meant)
        if flow.name is not None:
            yield from self._near_names(differences, flow.name, meant)

    def _of_name(self, name: DnsName) -> _Known:
        """What is asked of a name alone; many sources want the same ones."""
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= MAX_NAMES:
                self._known.clear()
            known = self._known[name] = _Known(
                self._meant_by_name(name), tuple(self._candidates(name))
            )
        return known

    # Rules that mean the flow

    def _meant_by_name(self, name: DnsName) -> dict[int, str]:
        """Numbers of the rules that mean a name, with the pattern or entry that does."""
        meant: dict[int, str] = {}
        for text in (str(name), *(f"*.{parent}" for parent in parents(name))):
            for number in self._having(text):
                meant.setdefault(number, _shown(self._rules[number], text))
        for value in self._matcher.names(name):
            for number in self._matcher.group(value):
                if number not in meant:  # by a prefix under a suffix
                    patterns = self._rules[number].patterns
                    found = next((str(one) for one in patterns if one.matches(name)), str(name))
                    meant[number] = _shown(self._rules[number], found)
        return meant

    def _having(self, text: str) -> Iterable[int]:
        """Numbers of the rules that have a pattern or entry, given in normal form."""
        value = self._matcher.table.find(text_key(text))
        return () if value is None else self._matcher.group(value)

    def _near_address(self, differences: Differences, meant: dict[int, str]) -> Iterator[NearMiss]:
        """What differs of rules that mean the flow's address and not its name; they are added."""
        packed = pack_address(differences.flow.dst or "")
        if packed is None:
            return
        for value in self._matcher.addresses(AddressUse.DESTINATION, packed):
            for number in self._matcher.group(value):
                rule = self._rules[number]
                if number in meant or rule.action is not Action.ALLOW:
                    continue
                text, is_wide = _network(rule, packed)
                meant[number] = text
                for miss in differences.but_the_name(rule, text):
                    if not (is_wide and miss.kind in _PORTS):
                        yield miss

    # Rules that nearly do

    def _near_names(
        self, differences: Differences, name: DnsName, meant: dict[int, str]
    ) -> Iterator[NearMiss]:
        for number, place in self._of_name(name).near:
            rule = self._rules[number]
            if number not in meant and differences.is_on_port(rule):
                yield from differences.in_pattern(rule, rule.patterns[place], name)
        for parent in parents(name):
            for rule in self._lists_having(parent, differences, meant):
                yield below_entry(rule, _shown(rule, parent), parent)
        for rule in self._lists_having(f"*.{name}", differences, meant):
            yield apex_of_entry(rule, _shown(rule, f"*.{name}"), name)

    def _lists_having(
        self, text: str, differences: Differences, meant: dict[int, str]
    ) -> Iterator[Rule]:
        for number in self._having(text):
            rule = self._rules[number]
            is_open = rule.action is Action.ALLOW and not rule.any_destination
            if is_open and rule.lists and number not in meant and differences.is_on_port(rule):
                yield rule

    def _candidates(self, name: DnsName) -> dict[_Place, None]:
        """The patterns that may be near a name, each once."""
        found: dict[_Place, None] = {}
        for tail in parents(name):
            if tail.count(".") > self._most_dots + 1:
                continue
            near = self._near_tails.get(tail)
            if near is None:
                if len(self._near_tails) >= MAX_TAILS:
                    self._near_tails.clear()
                near = self._near_tails[tail] = tuple(self._near(tail))
            if near:
                found.update(dict.fromkeys(near))
        found.update(dict.fromkeys(self._near(name)))
        return found

    def _near(self, tail: str) -> Iterator[_Place]:
        """The patterns whose suffix is a name, or nearly."""
        yield from self._suffixes.get(tail, ())
        if 0 < tail.count(".") <= self._most_dots + 1:
            find = self._texts.get
            is_short = len(tail) <= self._longest + 1
            for text in _variants(tail) if is_short else (_alike(tail),):
                if places := find(text):
                    yield from places


def _variants(name: str) -> Iterator[str]:
    """Texts that two names share when one is nearly the other.

    What it reads like; each label left out; each character left out.
    """
    yield _alike(name)
    labels = name.split(".")
    if len(labels) > 2:
        for place in range(len(labels)):
            yield ".".join([*labels[:place], "*", *labels[place + 1 :]])
    yield name
    for place in range(len(name)):
        yield name[:place] + name[place + 1 :]


def _alike(name: str) -> str:
    return f"~{skeleton(name)}"


def _shown(rule: Rule, text: str) -> str:
    """A pattern as it is written, or an entry with its list's file."""
    if not rule.lists or any(str(pattern) == text for pattern in rule.patterns):
        return text
    return f"{text} ({', '.join(names.path.name for names in rule.lists)})"


def _network(rule: Rule, packed: bytes) -> tuple[str, bool]:
    """The network of a rule that has an address, and whether it has too many to say something."""
    tags = f" ({', '.join(rule.tags[:3])})" if rule.tags else ""
    if len(rule.networks) > MAX_NETWORKS:
        return f"it among {len(rule.networks)} networks{tags}", True
    address = ip_address(packed)
    network = next(one for one in rule.networks if address in one)  # the table says that one has
    return f"{network}{tags}", network.max_prefixlen - network.prefixlen > _NARROW_BITS

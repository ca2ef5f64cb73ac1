"""What changes from one policy to another: its settings and rules, in words.

``diff_rules`` compares the rules as written; ``verdict_diff`` asks both rulesets about all that
either policy mentions, so it also sees what a reordered or shadowing rule does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.policy.digest import chosen_name, normal_form
from egressproxy.policy.rules import Policy, Rule
from egressproxy.policy.spans import AddressSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_ITEMS: Final = 10
"""Items of one key that a change names; the rest is counted."""

_SETTINGS: Final = (
    *("cloud", "mode", "audit_until", "warn_until", "warn_window"),
    *("destination", "ech", "refusal", "on_reload"),
)
_WORDS: Final = {
    "action": "action",
    "ports": "ports",
    "any_destination": "any address",
    "until": "until",
    "audit": "audit",
    "audit_until": "audit_until",
    "destination": "destination",
    "sni": "sni",
    "ech": "ech",
    "addresses": "addresses",
}
_Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Change:
    """One change in words: ``+`` added, ``-`` removed, ``~`` changed or moved."""

    sign: str
    subject: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.sign} {self.subject}" + (
            f": {'; '.join(self.details)}" if self.details else ""
        )


def diff_rules(old: Policy, new: Policy) -> tuple[Change, ...]:
    """Settings and rules that differ: settings, removed, added, changed, moved."""
    before, after = _keyed(old.rules), _keyed(new.rules)
    removed = [Change("-", describe(rule)) for key, rule in before.items() if key not in after]
    added = [Change("+", describe(rule)) for key, rule in after.items() if key not in before]
    changed = [
        Change("~", f"rule {rule.id}", details)
        for key, rule in after.items()
        if key in before and (details := _details(before[key], rule))
    ]
    stays = [key for key in after if key in before]
    moved = [
        Change("~", f"rule {after[key].id}", ("judged at another place in the order",))
        for key in _moved(list(before), stays)
    ]
    return (*_settings(old, new), *removed, *added, *changed, *moved)


def describe(rule: Rule) -> str:
    """A rule on one line: what it does, with whom, on which ports."""
    to = shorten(_destinations(rule))
    ports = ", ".join(map(str, rule.ports))
    return f"rule {rule.id}: {rule.action} {to} on {ports}{_clients(rule)}"


def shorten(items: Sequence[str]) -> str:
    """Up to ``MAX_ITEMS`` items, the rest counted."""
    more = len(items) - MAX_ITEMS
    told = ", ".join(items[:MAX_ITEMS])
    return f"{told} and {more} more" if more > 0 else told


def _settings(old: Policy, new: Policy) -> list[Change]:
    changes = [
        Change("~", f"{name}: {getattr(old, name) or 'none'} -> {getattr(new, name) or 'none'}")
        for name in _SETTINGS
        if getattr(old, name) != getattr(new, name)
    ]
    before, after = dict(old.sources), dict(new.sources)
    for name in sorted({*before, *after}):
        was, now = map(_texts, (before.get(name, ()), after.get(name, ())))
        if was != now:
            changes.append(Change("~", f"source group {name}", tuple(_items("", was, now))))
    return changes


def _keyed(rules: Iterable[Rule]) -> dict[_Key, Rule]:
    """Rules by id; those without a name by their content, since their numbers shift."""
    keyed: dict[_Key, Rule] = {}
    times: Counter[tuple[str, str]] = Counter()
    lists: dict[int, str] = {}
    for rule in rules:
        key = ("id", rule.id) if chosen_name(rule) else ("is", str(normal_form(rule, lists)))
        times[key] += 1
        keyed[(*key, times[key])] = rule
    return keyed


def _moved(before: list[_Key], after: list[_Key]) -> list[_Key]:
    """The fewest keys whose moving explains the new order: those off the longest rising run."""
    place = {key: number for number, key in enumerate(before)}
    tails: list[int] = []
    runs: list[int] = []
    for key in after:
        length = bisect_left(tails, place[key])
        tails[length : length + 1] = [place[key]]
        runs.append(length)
    wanted = len(tails) - 1
    moved = []
    for key, length in zip(reversed(after), reversed(runs), strict=True):
        if length == wanted:
            wanted -= 1
        else:
            moved.append(key)
    return moved[::-1]


def _details(old: Rule, new: Rule) -> tuple[str, ...]:
    details = list(_items("to ", _destinations(old), _destinations(new)))
    if _destinations(old) == _destinations(new) and old.networks != new.networks:
        details.append(f"the ranges of its service tags changed, {_ranges(old, new)}")
    if (was := _clients(old)) != (now := _clients(new)):
        details.append(f"{was.strip() or 'from everyone'} -> {now.strip() or 'from everyone'}")
    for name, word in _WORDS.items():
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, tuple):
            details += _items(f"{word} ", _texts(before), _texts(after))
        elif before != after:
            details.append(f"{word} {_value(before)} -> {_value(after)}")
    return tuple(details)


def _ranges(old: Rule, new: Rule) -> str:
    left, right = AddressSet.of_networks(old.networks), AddressSet.of_networks(new.networks)
    added, removed = (right - left).networks(), (left - right).networks()
    return f"{len(added):,} added and {len(removed):,} removed"


def _items(word: str, old: list[str], new: list[str]) -> Iterable[str]:
    was, now = set(old), set(new)
    if added := [item for item in new if item not in was]:
        yield f"{word}+ {shorten(added)}"
    if removed := [item for item in old if item not in now]:
        yield f"{word}- {shorten(removed)}"


def _value(value: object) -> str:
    return "none" if value is None else str(value)


def _texts(values: Iterable[object]) -> list[str]:
    return sorted(map(str, values))


def _destinations(rule: Rule) -> list[str]:
    """What the rule matches, as a person wrote it; a tag stands for its ranges."""
    listed = [entry for names in rule.lists for entry in names.entries]
    tags = [f"tag:{tag}" for tag in rule.tags]
    networks = [] if tags else _texts(rule.networks)
    anywhere = ["any address"] if rule.any_destination else []
    return [*_texts(rule.patterns), *listed, *tags, *networks, *anywhere]


def _clients(rule: Rule) -> str:
    if rule.sources is None:
        return ""
    return f" from {', '.join(rule.source_groups or map(str, rule.sources)) or 'nobody'}"

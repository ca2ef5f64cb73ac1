"""The digest of a policy: equal for policies that judge and record alike.

Comments, quoting, ``accept``, the order inside ``to``, ``ports`` and ``from``, paths, and how rules
are spread over files do not count; the order of rules does, and so do their names, which records
show.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Final

from egressproxy.policy.rules import Mode, Rule

if TYPE_CHECKING:
    from egressproxy.policy.rules import NameList, Policy

_APART: Final = frozenset({"id", "origin", "lists", "accept"})
_WARNING: Final = ("warn_until", "warn_window_s")
_GLOBAL: Final = ("cloud", "mode", "audit_until", "destination", "ech", "refusal", "on_reload")


def digest(policy: Policy) -> str:
    """Hex SHA-256 over the normal form; ``policy.digest`` itself does not count."""
    total = hashlib.sha256(b"egressproxy policy 1\n")
    lists: dict[int, str] = {}
    total.update(_line({name: _plain(getattr(policy, name)) for name in _GLOBAL}))
    if policy.mode is Mode.WARN_ON_NEW:  # so that no other policy's digest is another than it was
        total.update(_line({name: _plain(getattr(policy, name)) for name in _WARNING}))
    total.update(_line({name: sorted(map(str, ranges)) for name, ranges in policy.sources}))
    for rule in policy.rules:
        total.update(_line(normal_form(rule, lists)))
    return total.hexdigest()


def normal_form(rule: Rule, lists: dict[int, str] | None = None) -> dict[str, object]:
    """A rule as JSON values, equal for rules that mean the same; ``lists`` remembers digests."""
    memo = lists if lists is not None else {}
    return {
        "name": chosen_name(rule),
        "lists": sorted(_list_digest(names, memo) for names in rule.lists),
        **{f.name: _plain(getattr(rule, f.name)) for f in fields(Rule) if f.name not in _APART},
    }


def chosen_name(rule: Rule) -> str:
    """What a person named the rule, or its row; empty for a rule without a name."""
    if rule.requirement is not None:
        return rule.id
    name = rule.id.rpartition("rules/")[2]
    return "" if name.startswith("#") else name


def _list_digest(names: NameList, memo: dict[int, str]) -> str:
    if id(names) not in memo:
        memo[id(names)] = hashlib.sha256("\n".join(names.entries).encode()).hexdigest()
    return memo[id(names)]


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return sorted(map(str, value))
    return value if value is None or isinstance(value, bool) else str(value)


def _line(content: dict[str, object] | dict[str, list[str]]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode() + b"\n"

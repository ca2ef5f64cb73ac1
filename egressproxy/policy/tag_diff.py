"""What another service tag file changes: in its tags, and for the rules of one policy.

Compared are addresses, not the ranges as written: where Microsoft joins two ranges into one,
nothing has changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from egressproxy.policy.spans import AddressSet

if TYPE_CHECKING:
    from egressproxy.policy.rules import Policy, Rule
    from egressproxy.policy.tags import ServiceTags


@dataclass(frozen=True, slots=True)
class TagChange:
    """What becomes of one tag; ``is_new`` and ``is_gone`` where one file alone has it."""

    name: str
    added: AddressSet
    removed: AddressSet
    is_new: bool = False
    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class RuleChange:
    """What becomes of one rule's destinations."""

    rule: Rule
    added: AddressSet
    removed: AddressSet


def diff_tags(old: ServiceTags, new: ServiceTags) -> tuple[TagChange, ...]:
    """The tags that differ, in the order of the new file, those that are gone last.

    Raises:
        AddressError: a changed tag cannot be read; see ``Tag.addresses``.
    """
    before = {tag.name.lower(): tag for tag in old.tags}
    nothing = AddressSet()
    changes = []
    for tag in new.tags:
        was = before.pop(tag.name.lower(), None)
        if was is not None and was.prefixes == tag.prefixes:
            continue
        left = was.addresses() if was is not None else nothing
        right = tag.addresses()
        if was is None or left != right:
            changes.append(TagChange(tag.name, right - left, left - right, is_new=was is None))
    gone = (TagChange(t.name, nothing, t.addresses(), is_gone=True) for t in before.values())
    return (*changes, *gone)


def diff_ranges(old: Policy, new: Policy) -> tuple[RuleChange, ...]:
    """The rules whose addresses differ; both are one policy, read with two service tag files."""
    changes = []
    for was, rule in zip(old.rules, new.rules, strict=True):
        if was.networks == rule.networks:
            continue
        left, right = AddressSet.of_networks(was.networks), AddressSet.of_networks(rule.networks)
        if left != right:
            changes.append(RuleChange(rule, right - left, left - right))
    return tuple(changes)

"""A rule's id as Azure Firewall's three levels: rule collection group, rule collection, rule."""

from __future__ import annotations

from typing import NamedTuple


class RulePath(NamedTuple):
    """The three columns that Azure Firewall's tables have for a rule; empty where none decided."""

    group: str = ""
    collection: str = ""
    rule: str = ""


def rule_path(rule_id: str | None) -> RulePath:
    """Where a rule of ours would stand in a firewall policy.

    ``aks/core#mcr`` is the rule ``mcr`` of the collection ``aks/core`` in the group
    ``requirements``; ``rules/github`` is ``github`` of ``rules`` in the group ``policy``; a rule of
    an included file has the file for its group.
    """
    if not rule_id:
        return RulePath()
    requirement, mark, row = rule_id.partition("#")
    if mark:
        return RulePath("requirements", requirement, row)
    file, _, name = rule_id.rpartition("rules/")
    return RulePath(file.rstrip("/:") or "policy", "rules", name)

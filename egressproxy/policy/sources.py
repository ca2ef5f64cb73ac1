"""Whom a rule counts for: named groups, literal ranges, and the caps of includes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from egressproxy.errors import nearest
from egressproxy.policy.networks import Network, in_order, intersect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from egressproxy.policy.document import Groups
    from egressproxy.policy.fields import At
    from egressproxy.policy.problems import Report
    from egressproxy.policy.yaml_nodes import Node


@dataclass(frozen=True, slots=True)
class Clients:
    """``networks`` is ``None`` for everyone; ``groups`` are the names that were written."""

    networks: tuple[Network, ...] | None = None
    groups: tuple[str, ...] = ()


EVERYONE = Clients()


@dataclass(slots=True)
class GroupTable:
    """Every source group of a policy, whichever file defines it; names are unique."""

    networks: dict[str, tuple[Network, ...]] = field(default_factory=dict)
    _places: dict[str, tuple[str, int]] = field(default_factory=dict)

    def define(
        self, groups: Groups, outer: Mapping[str, tuple[Network, ...]], report: Report
    ) -> dict[str, tuple[Network, ...]]:
        """What a file can name: its own groups and those of the files that include it."""
        scope = dict(outer)
        for name, ranges in groups:
            place = (report.file, name.node.line)
            first = self._places.setdefault(name.value, place)
            if first != place:
                hint = f"it is defined in {first[0]}:{first[1]}: choose another name"
                report.add(name.node, f"source group {name.value!r} is defined twice", hint)
            scope[name.value] = in_order(item.value for item in ranges)
            self.networks.setdefault(name.value, scope[name.value])
        return scope


def clients_of(
    items: tuple[At[Network | str], ...] | None,
    scope: Mapping[str, tuple[Network, ...]],
    cap: Clients,
    report: Report,
) -> Clients:
    """The clients of a ``from:``, no more than ``cap``; without ``from:``, the cap itself."""
    if items is None:
        return cap
    networks: list[Network] = []
    names: list[str] = []
    is_whole = True
    for item in items:
        if not isinstance(item.value, str):
            networks.append(item.value)
        elif item.value in scope:
            networks += scope[item.value]
            names.append(item.value)
        else:
            is_whole = False
            hint = nearest(item.value, scope) or "define it in sources:, or write a range"
            report.add(item.node, f"there is no source group {item.value!r}", hint)
    if items:
        report.count_ranges(items[0].node, len(networks))
    found = in_order(networks)
    if cap.networks is None:
        return Clients(found, tuple(dict.fromkeys(names)))
    common = intersect(found, cap.networks)
    if items and is_whole and not common:
        _report_nobody(items[0].node, cap, report)
    return Clients(common, tuple(dict.fromkeys(names)))


def _report_nobody(node: Node, cap: Clients, report: Report) -> None:
    allowed = ", ".join(cap.groups or map(str, cap.networks or ()))
    what = "these sources are all outside those that the include allows"
    report.add(node, what, f"the including file allows {allowed}")

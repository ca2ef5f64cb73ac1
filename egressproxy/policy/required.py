"""From the ``requirements:`` of a policy to ``Rule`` objects, row by row of the catalog."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from egressproxy.catalog.expand import expand
from egressproxy.catalog.loader import load_catalog
from egressproxy.errors import CatalogError
from egressproxy.policy.networks import in_order
from egressproxy.policy.rules import Origin, Rule
from egressproxy.policy.sources import Clients, clients_of
from egressproxy.policy.verdict import Action

if TYPE_CHECKING:
    from collections.abc import Iterable

    from egressproxy.catalog.model import ExpandedRow
    from egressproxy.errors import ParameterProblem
    from egressproxy.policy.document import RequirementEntry
    from egressproxy.policy.include import Part
    from egressproxy.policy.written import Context
    from egressproxy.policy.yaml_nodes import Node


@dataclass(frozen=True, slots=True)
class _Listing:
    """One requirement as a file lists it; ``suffix`` tells it from others of the same id."""

    part: Part
    entry: RequirementEntry
    clients: Clients
    suffix: str


def required_rules(parts: Iterable[Part], context: Context) -> list[Rule]:
    """The rules of every requirement, in order; ids stay unique where one is listed again."""
    return [
        _rule(row, listing, context)
        for listing in _listings(parts)
        for row in _rows(listing, context.cloud)
    ]


def _listings(parts: Iterable[Part]) -> list[_Listing]:
    listed = [(part, entry) for part in parts for entry in part.document.requirements or ()]
    times = Counter(entry.id.value for _, entry in listed)
    suffixes: set[str] = set()
    numbers: Counter[str] = Counter()
    listings = []
    for part, entry in listed:
        clients = clients_of(entry.sources, part.scope.groups, part.scope.cap, part.report)
        numbers[entry.id.value] += 1
        suffix = ""
        if times[entry.id.value] > 1:
            suffix = _suffix(entry.id.value, clients, numbers[entry.id.value], suffixes)
        listings.append(_Listing(part, entry, clients, suffix))
    return listings


def _suffix(requirement: str, clients: Clients, number: int, taken: set[str]) -> str:
    """``@cluster-a`` from the listing's sources, or ``@2`` from its place."""
    label = "+".join(clients.groups)
    if not label or f"{requirement}@{label}" in taken:
        label = str(number)
    taken.add(f"{requirement}@{label}")
    return f"@{label}"


def _rows(listing: _Listing, cloud: str | None) -> tuple[ExpandedRow, ...]:
    part, entry = listing.part, listing.entry
    own: dict[str, object] = {name.value: value.value for name, value in entry.parameters}
    shared: dict[str, object] = {name: at.value for name, at in part.scope.parameters.items()}
    via = entry.via.value if entry.via is not None else None
    try:
        if cloud is None:  # told already; the id can be checked without it
            load_catalog().requirement(entry.id.value)
            return ()
        return expand(entry.id.value, cloud=cloud, parameters=own, shared=shared, via=via)
    except CatalogError as error:
        for problem in error.problems:
            _report(problem, part, entry)
        return ()


def _report(problem: ParameterProblem, part: Part, entry: RequirementEntry) -> None:
    """Tell a problem at the key it is about: an option, a shared parameter, or the id."""
    nodes: dict[str, Node] = {name.value: name.node for name, _ in entry.parameters}
    if entry.via is not None:
        nodes["via"] = entry.via.node
    if problem.parameter in nodes:
        part.report.add(nodes[problem.parameter], problem.what, problem.hint)
        return
    for name, _ in part.document.parameters or ():
        if name.value == problem.parameter:
            part.report.add(name.node, problem.what, problem.hint)
            return
    part.report.add(entry.id.node, f"{entry.id.value}: {problem.what}", problem.hint)


def _rule(expanded: ExpandedRow, listing: _Listing, context: Context) -> Rule:
    row, entry, report = expanded.row, listing.entry, listing.part.report
    defaults = context.defaults
    networks = list(expanded.networks)
    at = entry.via.node if entry.via is not None else entry.id.node
    for tag in expanded.tags:
        wanted_by = f"{row.id} needs the"
        networks += context.references.networks(tag, at, report, wanted_by=wanted_by)
    report.count_ranges(at, len(networks))
    return Rule(
        id=f"{row.id}{listing.suffix}",
        action=Action.ALLOW,
        ports=expanded.ports,
        origin=Origin(report.file, entry.node.line, entry.node.column, row.document, row.section),
        patterns=expanded.patterns,
        networks=in_order(networks),
        tags=expanded.tags,
        any_destination=expanded.any_destination,
        sources=listing.clients.networks,
        source_groups=listing.clients.groups,
        destination=defaults.destination,
        ech=defaults.ech,
        addresses=in_order(item.value for item in entry.addresses or ()),
        accept=tuple(dict.fromkeys(item.value for item in entry.accept or ())),
        requirement=entry.id.value,
    )

"""What must hold of the catalog's data beyond its schema; ``mistakes`` lists what does not."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from egressproxy.catalog.model import CLOUDS, Catalog, Kind, Requirement, Row
from egressproxy.catalog.parameters import PARAMETERS
from egressproxy.catalog.templates import PLACEHOLDER, row_parameters
from egressproxy.errors import PatternError
from egressproxy.patterns import parse_pattern

if TYPE_CHECKING:
    from collections.abc import Iterator

_SAMPLE: Final = "sample"


def mistakes(catalog: Catalog) -> Iterator[str]:
    """Each mistake as a sentence that names the row."""
    for requirement in catalog.requirements:
        yield from _of_requirement(requirement)
        for row in requirement.rows:
            for what in _of_row(row):
                yield f"{row.id} ({row.cloud}): {what}"
            if row.via and row.via not in requirement.vias:
                yield f"{row.id} ({row.cloud}): via {row.via} is no choice of {requirement.id}"


def _of_requirement(requirement: Requirement) -> Iterator[str]:
    counts = Counter((row.id, row.cloud) for row in requirement.rows)
    for (row_id, cloud), count in counts.items():
        if count > 1:
            yield f"{row_id} ({cloud}) is written {count} times"
    if not requirement.clouds:
        yield f"{requirement.id} has no row in any cloud"
    if requirement.default_via and requirement.default_via not in requirement.vias:
        yield f"{requirement.id}: default via {requirement.default_via} is no choice"
    for cloud in requirement.absent:
        if cloud in requirement.clouds:
            yield f"{requirement.id} is said to be absent in {cloud}, which has it"
    for cloud in CLOUDS:
        yield from _of_groups(requirement, cloud)


def _of_groups(requirement: Requirement, cloud: str) -> Iterator[str]:
    offered: dict[str, set[str]] = {}
    for row in requirement.rows_of(cloud):
        if row.group and row.via:
            offered.setdefault(row.group, set()).add(row.via)
    for group, vias in offered.items():
        for via in requirement.vias.keys() - vias:
            yield f"{requirement.id} ({cloud}): group {group} has no row for via {via}"


def _of_row(row: Row) -> Iterator[str]:
    kinds = (bool(row.names), bool(row.tags), bool(row.networks_from), row.any_destination)
    wrong = {
        "exactly one of names, tags, networks_from, any_destination": sum(kinds) != 1,
        "tls and http ports need names": not row.names
        and any(span.protocol.is_application for span in row.ports),
        "no section": not row.section,
        "group and via go together": (row.group is None) != (row.via is None),
        "a row that is required cannot be a note": row.is_note and row.kind is Kind.REQUIRED,
        "narrowed_by needs names": row.narrowed_by is not None and not row.names,
    }
    yield from (what for what, is_wrong in wrong.items() if is_wrong)
    for name in row_parameters(row):
        if name not in PARAMETERS:
            yield f"there is no parameter {name!r}"
    for name in row.names:
        try:
            parse_pattern(PLACEHOLDER.sub(_SAMPLE, name))
        except PatternError as error:
            yield str(error)

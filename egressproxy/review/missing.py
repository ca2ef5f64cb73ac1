"""Requirements of the catalog that a policy lacks, as what was denied shows them.

The fewest that cover the most: of what one name alone could mean, the requirement that opens least
beside it. Parameters that the policy does not give are read from the names themselves
(``{registry}.{region}.data.azurecr.io``). A requirement with names that anybody can have, which the
catalog marks, is not for a deny to suggest: then the names alone are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.catalog.expand import expand
from egressproxy.catalog.loader import load_catalog
from egressproxy.catalog.notes import rows_of_name
from egressproxy.catalog.parameters import PARAMETERS
from egressproxy.catalog.templates import PLACEHOLDER, parameters_of, placeholders
from egressproxy.errors import CatalogError
from egressproxy.names import DnsName
from egressproxy.policy.lint_names import is_shared

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from egressproxy.catalog.model import ExpandedRow, Requirement, Row
    from egressproxy.patterns import Pattern
    from egressproxy.policy.rules import Policy
    from egressproxy.ports import PortSpan
    from egressproxy.review.eligible import Wanted
    from egressproxy.review.model import Subject

_REGISTRY: Final = "registry"

Option = str | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One item of ``requirements:`` and the subjects that it would let through."""

    requirement: Requirement
    options: tuple[tuple[str, Option], ...]
    rows: tuple[ExpandedRow, ...]
    covers: tuple[Wanted, ...]

    @property
    def pattern_count(self) -> int:
        """How many names and wildcards it opens."""
        return sum(len(row.patterns) for row in self.rows)


def missing(
    wanted: Sequence[Wanted], shared: Sequence[Wanted], policy: Policy, skip: Collection[str] = ()
) -> tuple[Listing, ...]:
    """The requirements to add, those that cover most first.

    Args:
        wanted: what may be opened.
        shared: names that anybody could have: opened where the catalog has that very name.
        policy: its requirements are not suggested again; its parameters count.
        skip: ids that are not to be used.
    """
    left = [*wanted, *shared]
    strangers = {each.count.subject.id for each in shared}
    found = []
    skipped = set(skip)
    while best := _best(left, strangers, policy, skipped):
        found.append(best)
        if _is_narrowed(best):  # to one cluster: another one is not the catalog's to suggest
            skipped.add(best.requirement.id)
        covered = {each.count.subject.id for each in best.covers}
        left = [each for each in left if each.count.subject.id not in covered]
    return tuple(found)


def _best(
    left: list[Wanted], strangers: set[int], policy: Policy, skip: Collection[str]
) -> Listing | None:
    by_requirement = _by_requirement(left, policy, skip)
    listings = [
        listing
        for requirement in load_catalog().requirements
        if (meant := by_requirement.get(requirement.id))
        and (listing := _listing(requirement, meant, left, strangers, policy)) is not None
    ]
    return max(listings, key=_worth, default=None)


def _worth(listing: Listing) -> tuple[int, int]:
    names = {each.count.subject.name for each in listing.covers}
    return len(names), -listing.pattern_count


def _by_requirement(
    left: Iterable[Wanted], policy: Policy, skip: Collection[str]
) -> dict[str, dict[str, int]]:
    """Requirements that the policy lacks, each with the names that its rows mean, and flows."""
    found: dict[str, dict[str, int]] = {}
    for each in left:
        name = each.count.subject.name
        if name is None:
            continue
        for row in rows_of_name(DnsName(name), policy.cloud):
            if row.is_note or not row.suggested or row.requirement in (*skip, *policy.requirements):
                continue
            names = found.setdefault(row.requirement, {})
            names[name] = names.get(name, 0) + each.count.count
    return found


def _listing(
    requirement: Requirement,
    meant: dict[str, int],
    left: Iterable[Wanted],
    strangers: set[int],
    policy: Policy,
) -> Listing | None:
    options = _options(requirement, _ranked(meant, left, strangers), policy)
    try:
        rows = expand(
            requirement.id,
            cloud=policy.cloud,
            parameters=options,
            shared=dict(policy.parameters),
        )
    except CatalogError:  # it wants what only a person knows
        return None
    if not all(row.row.suggested for row in rows):
        return None
    covers = tuple(each for each in left if _is_opened(each.count.subject, rows, each, strangers))
    of_its_own = [each for each in covers if not _is_only_shared(each.count.subject, rows)]
    if not of_its_own:
        return None
    return Listing(
        requirement=requirement, options=tuple(options.items()), rows=rows, covers=covers
    )


def _ranked(meant: dict[str, int], left: Iterable[Wanted], strangers: set[int]) -> list[str]:
    """Names by how much they say of parameters: nobody's before a stranger's, then the commonest.

    A client may ask for its own registry as often as it likes.
    """
    doubtful = {
        each.count.subject.name
        for each in left
        if each.shared or each.count.subject.id in strangers
    }
    return sorted(meant, key=lambda name: (name in doubtful, -meant[name], name))


def _is_narrowed(listing: Listing) -> bool:
    given = dict(listing.options)
    return any(row.row.narrowed_by in given for row in listing.rows)


def _is_opened(
    subject: Subject, rows: Sequence[ExpandedRow], each: Wanted, strangers: set[int]
) -> bool:
    is_stranger = each.count.subject.id in strangers
    return any(
        pattern.matches(subject.name or "")
        and (not is_stranger or (pattern.is_exact and not _is_template(row.row)))
        for row in rows
        if any(_has(span, subject) for span in row.ports)
        for pattern in row.patterns
    )


def _is_only_shared(subject: Subject, rows: Sequence[ExpandedRow]) -> bool:
    patterns = [p for row in rows for p in row.patterns if p.matches(subject.name or "")]
    return all(not pattern.is_exact and is_shared(pattern.suffix) for pattern in patterns)


def shared_wildcards(rows: Iterable[ExpandedRow]) -> list[Pattern]:
    """Wildcards of rows below which any customer can have a name."""
    patterns = (pattern for row in rows for pattern in row.patterns)
    return [pattern for pattern in patterns if not pattern.is_exact and is_shared(pattern.suffix)]


def _has(span: PortSpan, subject: Subject) -> bool:
    return span.protocol == subject.protocol and subject.dst_port in span


def _is_template(row: Row) -> bool:
    return any(placeholders(name) for name in row.names)


# What names say of parameters


def _options(requirement: Requirement, names: Sequence[str], policy: Policy) -> dict[str, Option]:
    """What a listing must say beyond the policy's own parameters; the first names say it first."""
    given = dict(policy.parameters)
    rows = [row for row in requirement.rows_of(policy.cloud) if not row.is_note]
    hits = [
        (row, values, name)
        for name in names
        for row in rows
        for template in row.names
        if (values := _captured(template, name)) is not None
    ]
    registry = next((values[_REGISTRY] for _, values, _ in hits if _REGISTRY in values), None)
    hits = [hit for hit in hits if hit[1].get(_REGISTRY, registry) == registry]
    options: dict[str, Option] = {}
    for row, values, _ in hits:
        for condition in row.when:
            if condition.value != PARAMETERS[condition.parameter].default:
                options[condition.parameter] = condition.value
        for parameter, value in values.items():
            _add(options, parameter, value)
    options |= _narrowed(rows, hits)
    taken = parameters_of(requirement, policy.cloud)
    return {name: value for name, value in options.items() if name in taken and name not in given}


def _add(options: dict[str, Option], parameter: str, value: str) -> None:
    if parameter == "regions":
        known = options.get(parameter, ())
        regions = {*(known if isinstance(known, tuple) else ()), value}
        options[parameter] = tuple(sorted(regions))
    else:
        options.setdefault(parameter, value)


def _narrowed(
    rows: Iterable[Row], hits: Sequence[tuple[Row, dict[str, str], str]]
) -> dict[str, Option]:
    """A row that one name can narrow: the cluster's API server.

    Where several were asked for, the first: without one the row would open every tenant's.
    """
    found: dict[str, Option] = {}
    for row in rows:
        name = next((name for hit, _, name in hits if hit is row), None)
        if row.narrowed_by and name is not None:
            found[row.narrowed_by] = name
    return found


def _captured(template: str, name: str) -> dict[str, str] | None:
    """The parameters' values by which a template is a name; ``None`` where it is not."""
    wanted = placeholders(template)
    parts = re.split(r"(\*|\{[a-z_]+\})", template)
    expression = "".join(
        ".+"
        if part == "*"
        else f"(?P<{part[1:-1]}>[^.]+)"
        if PLACEHOLDER.fullmatch(part)
        else re.escape(part)
        for part in parts
    )
    match = re.fullmatch(expression, name)
    return None if match is None else {wanted[k]: v for k, v in match.groupdict().items()}

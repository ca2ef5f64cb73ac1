"""From a requirement, a cloud and parameters to the rows that a policy's rules are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from egressproxy.catalog.loader import load_catalog
from egressproxy.catalog.model import CLOUDS, Catalog, Condition, ExpandedRow, Requirement, Row
from egressproxy.catalog.parameters import PARAMETERS, read_value
from egressproxy.catalog.templates import expression, parameters_of, placeholders
from egressproxy.errors import CatalogError, ParameterProblem, nearest
from egressproxy.patterns import Pattern, parse_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Network, IPv6Network

    from egressproxy.catalog.parameters import Value


def expand(
    requirement_id: str,
    *,
    cloud: str,
    parameters: Mapping[str, object] | None = None,
    shared: Mapping[str, object] | None = None,
    via: str | None = None,
    catalog: Catalog | None = None,
) -> tuple[ExpandedRow, ...]:
    """The rows of a requirement in one cloud, in document order; notes are left out.

    Args:
        requirement_id: such as ``aks/core``.
        cloud: one of ``CLOUDS``.
        parameters: given to this requirement; one that it does not take is an error.
        shared: given to every requirement of a policy; overridden by ``parameters``, and ignored
            where this requirement does not take them.
        via: the alternative to take; ``None`` is the requirement's default.
        catalog: other than the packaged one.

    Raises:
        CatalogError: ``problems`` holds everything that is wrong, each with the key to point at.
    """
    requirement = (catalog or load_catalog()).requirement(requirement_id)
    _check_cloud(requirement, cloud)
    problems: list[ParameterProblem] = []
    via = _choose_via(requirement, via, problems)
    values = _read(requirement, cloud, parameters or {}, shared or {}, problems)
    filler = _Filler(values, problems, {p.parameter for p in problems})
    rows = [
        filler.expand(row)
        for row in requirement.rows_of(cloud)
        if not row.is_note and row.via in (None, via) and filler.counts(row)
    ]
    if problems:
        raise CatalogError.of(requirement.id, tuple(dict.fromkeys(problems)))
    return tuple(rows)


def _check_cloud(requirement: Requirement, cloud: str) -> None:
    if cloud not in CLOUDS:
        problem = ParameterProblem(
            "cloud", f"there is no cloud {cloud!r}", nearest(cloud, CLOUDS) or ", ".join(CLOUDS)
        )
    elif cloud not in requirement.clouds:
        problem = ParameterProblem(
            "",
            f"{cloud} does not have this requirement; {' and '.join(requirement.clouds)} have it",
            requirement.absent.get(cloud, "remove it, or write rules for the names you know"),
        )
    else:
        return
    raise CatalogError.of(requirement.id, (problem,))


def _choose_via(
    requirement: Requirement, via: str | None, problems: list[ParameterProblem]
) -> str | None:
    choices = ", ".join(requirement.vias)
    if via is None:
        if requirement.vias and requirement.default_via is None:
            problems.append(ParameterProblem("via", "via must be chosen", f"via: one of {choices}"))
        return requirement.default_via
    if not requirement.vias:
        problems.append(ParameterProblem("via", "there are no alternatives", "remove via"))
    elif via not in requirement.vias:
        hint = nearest(via, requirement.vias, count=1) or f"one of {choices}"
        problems.append(ParameterProblem("via", f"there is no via {via!r}", hint))
    return via


def _read(
    requirement: Requirement,
    cloud: str,
    parameters: Mapping[str, object],
    shared: Mapping[str, object],
    problems: list[ParameterProblem],
) -> dict[str, Value]:
    taken = parameters_of(requirement, cloud)
    problems += [
        _not_taken(requirement, cloud, name, taken) for name in parameters if name not in taken
    ]
    problems += [
        ParameterProblem(name, f"there is no parameter {name!r}", nearest(name, PARAMETERS))
        for name in shared
        if name not in PARAMETERS
    ]
    values: dict[str, Value] = {}
    for name in taken:
        raw = parameters.get(name, shared.get(name, PARAMETERS[name].default))
        if raw is None:
            continue
        value = read_value(PARAMETERS[name], raw)
        if isinstance(value, ParameterProblem):
            problems.append(value)
        else:
            values[name] = value
    return values


def _not_taken(
    requirement: Requirement, cloud: str, name: str, taken: tuple[str, ...]
) -> ParameterProblem:
    elsewhere = [
        other
        for other in requirement.clouds
        if other != cloud and name in parameters_of(requirement, other)
    ]
    if elsewhere:
        return ParameterProblem(
            name, f"{name} means nothing in {cloud}", f"only in {' and '.join(elsewhere)}"
        )
    hint = nearest(name, taken, count=1)
    return ParameterProblem(
        name,
        f"it takes no parameter {name!r}",
        hint or (f"it takes {', '.join(taken)}" if taken else "it takes none"),
    )


@dataclass(slots=True)
class _Filler:
    """Fills the templates of rows; problems are collected, one for each missing parameter.

    ``spoiled`` are parameters that were given and are wrong: they are not reported as missing too.
    """

    values: Mapping[str, Value]
    problems: list[ParameterProblem]
    spoiled: set[str] = field(default_factory=set)

    def counts(self, row: Row) -> bool:
        exempt = any(e.flag and self.values.get(e.flag) is True for e in row.not_needed)
        return not exempt and all(self._holds(condition) for condition in row.when)

    def _holds(self, condition: Condition) -> bool:
        value = self.values.get(condition.parameter)
        if isinstance(condition.value, bool) and not isinstance(value, bool):
            return (value is not None) is condition.value
        return value == condition.value

    def expand(self, row: Row) -> ExpandedRow:
        return ExpandedRow(
            row=row,
            ports=row.ports,
            patterns=self._patterns(row),
            networks=self._networks(row),
            tags=tuple(tag for template in row.tags for tag in self._fill(template)),
            any_destination=row.any_destination,
        )

    def _patterns(self, row: Row) -> tuple[Pattern, ...]:
        narrow = self.values.get(row.narrowed_by) if row.narrowed_by else None
        if isinstance(narrow, str):
            return self._narrowed(row, narrow)
        return tuple(parse_pattern(name) for template in row.names for name in self._fill(template))

    def _narrowed(self, row: Row, name: str) -> tuple[Pattern, ...]:
        location = self.values.get("location")
        wildcards = [
            template.replace("{location}", location) if isinstance(location, str) else template
            for template in row.names
        ]
        if not any(expression(wildcard).fullmatch(name) for wildcard in wildcards):
            self.problems.append(
                ParameterProblem(
                    row.narrowed_by or "",
                    f"{row.narrowed_by}: {name} is none of {', '.join(wildcards)}",
                    "private_cluster: true leaves the row out"
                    if any(exemption.flag for exemption in row.not_needed)
                    else PARAMETERS["api_server_fqdn"].hint,
                )
            )
        return (parse_pattern(name),)

    def _networks(self, row: Row) -> tuple[IPv4Network | IPv6Network, ...]:
        if row.networks_from is None:
            return ()
        found = self.values.get(row.networks_from)
        if not isinstance(found, tuple):
            self._missing(row.networks_from)
            return ()
        return tuple(network for network in found if not isinstance(network, str))

    def _fill(self, template: str) -> list[str]:
        texts = [template]
        for placeholder, name in placeholders(template).items():
            value = self.values.get(name)
            if isinstance(value, str):
                items: tuple[str, ...] = (value,)
            elif isinstance(value, tuple):
                items = tuple(str(item) for item in value)
            else:
                self._missing(name)
                return []
            texts = [t.replace(f"{{{placeholder}}}", item) for t in texts for item in items]
        return texts

    def _missing(self, name: str) -> None:
        if name not in self.spoiled:
            self.spoiled.add(name)
            self.problems.append(ParameterProblem(name, f"it needs {name}", PARAMETERS[name].hint))

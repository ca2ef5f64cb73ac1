"""What the catalog knows: requirements, their rows, and rows expanded for one policy.

A ``Row`` is one row of a Microsoft document for one cloud (or one of ours, with the reason). Its
names and tags are templates: ``{location}``, ``{registry}`` and ``{region}`` (each of ``regions``)
stand for parameters. The data are the YAML files beside this module; ``loader`` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from egressproxy.catalog.parameters import PARAMETERS, ParameterKind
from egressproxy.errors import CatalogError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Network, IPv6Network

    from egressproxy.patterns import Pattern
    from egressproxy.ports import PortSpan

CLOUDS: Final = ("AzureCloud", "AzureChinaCloud", "AzureUSGovernment")
"""The clouds, by the az CLI's names."""


class Kind(StrEnum):
    """What becomes of a cluster that cannot reach a row."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    """Recommended, or needed for a part that may be missed."""
    HARMLESS = "harmless"
    """Nothing."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A row counts only where a parameter has this value.

    ``True`` and ``False`` ask, of a parameter that is no flag, whether it is given at all.
    """

    parameter: str
    value: str | bool

    def __str__(self) -> str:
        if isinstance(self.value, str):
            return f"{self.parameter} is {self.value}"
        if PARAMETERS[self.parameter].kind is ParameterKind.FLAG:
            return f"{self.parameter} is {str(self.value).lower()}"
        return f"{self.parameter} is given" if self.value else f"{self.parameter} is not given"


@dataclass(frozen=True, slots=True)
class Exemption:
    """When a row's cloud does not need it; ``flag`` is a parameter that leaves the row out.

    ``text`` goes on from "not needed": "in private clusters".
    """

    text: str
    flag: str | None = None
    since: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One documented dependency in one cloud.

    ``id`` is stable and the same in every cloud that has the row: ``aks/core#mcr``. Exactly one
    kind of destination is set: ``names``, ``tags``, ``networks_from`` (the parameter which holds
    them) or ``any_destination``. ``group`` holds rows that are alternatives; ``via`` says which
    alternative this one belongs to. ``narrowed_by`` is the parameter whose one name replaces the
    wildcard. ``note`` marks a row that is never allowed by a requirement: it only explains a deny.
    ``suggested`` is whether a denied name may be said to be ``needed-by`` this requirement.
    ``symptom`` is what people see in AKS while the row is denied.
    """

    id: str
    requirement: str
    cloud: str
    ports: tuple[PortSpan, ...]
    purpose: str
    document: str
    section: str
    kind: Kind = Kind.REQUIRED
    names: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    networks_from: str | None = None
    any_destination: bool = False
    group: str | None = None
    via: str | None = None
    when: tuple[Condition, ...] = ()
    narrowed_by: str | None = None
    not_needed: tuple[Exemption, ...] = ()
    ours: str | None = None
    since: str | None = None
    note: str | None = None
    suggested: bool = True
    symptom: str = ""

    @property
    def is_note(self) -> bool:
        """Whether this row only explains a deny and never allows anything."""
        return self.note is not None

    @property
    def destinations(self) -> tuple[str, ...]:
        """The destination as a person reads it, templates unfilled."""
        if self.any_destination:
            return ("any address",)
        if self.networks_from:
            return (f"{{{self.networks_from}}}",)
        return self.names or tuple(f"tag:{tag}" for tag in self.tags)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What a policy lists by id; ``rows`` are those of every cloud, in document order.

    ``vias`` are the alternatives of the requirement's groups with what each means; ``default_via``
    is ``None`` where a policy must choose. ``absent`` says, for a cloud without rows, what to do.
    """

    id: str
    title: str
    rows: tuple[Row, ...]
    vias: Mapping[str, str]
    default_via: str | None = None
    absent: Mapping[str, str]
    warning: str = ""

    @property
    def clouds(self) -> tuple[str, ...]:
        """The clouds that have this requirement."""
        return tuple(c for c in CLOUDS if any(r.cloud == c and not r.is_note for r in self.rows))

    def rows_of(self, cloud: str) -> tuple[Row, ...]:
        """The rows of one cloud, those that only explain a deny included."""
        return tuple(row for row in self.rows if row.cloud == cloud)


@dataclass(frozen=True, slots=True)
class Catalog:
    """All requirements, in the order in which a person meets them."""

    requirements: tuple[Requirement, ...]

    def requirement(self, requirement_id: str) -> Requirement:
        """The requirement of this id.

        Raises:
            CatalogError: naming the nearest ids.
        """
        for requirement in self.requirements:
            if requirement.id == requirement_id:
                return requirement
        ids = [requirement.id for requirement in self.requirements]
        raise CatalogError(
            f"there is no requirement {requirement_id!r}",
            hint=nearest(requirement_id, ids) or "egressproxy catalog list shows them",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpandedRow:
    """A row with its templates filled in: what a policy's rule is made of.

    Tags are written as the document does (``AzureCloud.japaneast``); they are compared without
    regard to case.
    """

    row: Row
    ports: tuple[PortSpan, ...]
    patterns: tuple[Pattern, ...] = ()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    tags: tuple[str, ...] = ()
    any_destination: bool = False

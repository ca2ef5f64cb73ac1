"""One name for each name of the catalog, to ask a policy about all of them."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final, NamedTuple

from egressproxy.catalog.parameters import PARAMETERS, read_value
from egressproxy.catalog.templates import placeholders
from egressproxy.errors import CatalogError, ParameterProblem
from egressproxy.names import DnsName

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from egressproxy.catalog.model import Row
    from egressproxy.ports import PortSpan

WILDCARD: Final = "sample"
"""Stands for ``*``."""


class Sample(NamedTuple):
    """A name that a row means, and one of its ports."""

    name: DnsName
    port: PortSpan
    row: Row


def samples(rows: Iterable[Row], parameters: Mapping[str, str] | None = None) -> list[Sample]:
    """A sample for each name and port of the rows, each once, in their order.

    Args:
        rows: those with other destinations than names give nothing.
        parameters: as texts; the catalog's own example stands for one that is not given.

    Raises:
        CatalogError: a value that the parameter cannot have.
    """
    given = parameters or {}
    found: dict[tuple[DnsName, PortSpan], Row] = {}
    for row in rows:
        for template in row.names:
            for name, port in product(_names(template, given), row.ports):
                found.setdefault((name, port), row)
    return [Sample(name, port, row) for (name, port), row in found.items()]


def _names(template: str, given: Mapping[str, str]) -> list[DnsName]:
    texts = [template.replace("*", WILDCARD)]
    for placeholder, name in placeholders(template).items():
        values = _values(name, given)
        texts = [text.replace(f"{{{placeholder}}}", value) for text in texts for value in values]
    return [DnsName(text) for text in texts]


def _values(name: str, given: Mapping[str, str]) -> tuple[str, ...]:
    parameter = PARAMETERS[name]
    value = read_value(parameter, given.get(name, parameter.example.strip("[]")))
    if isinstance(value, ParameterProblem):
        raise CatalogError.of("samples", (value,))
    return tuple(map(str, value)) if isinstance(value, tuple) else (str(value),)

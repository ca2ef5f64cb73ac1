"""Templates of names and tags: which placeholders they have and which parameters these stand for.

``{location}`` stands for one parameter's value, ``{region}`` for each item of ``regions``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.catalog.model import Requirement, Row

PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")
_EACH: Final = {"region": "regions"}


def placeholders(template: str) -> dict[str, str]:
    """The placeholders of a template, each with the parameter that it stands for."""
    return {name: _EACH.get(name, name) for name in PLACEHOLDER.findall(template)}


def expression(template: str) -> re.Pattern[str]:
    """What a template can become: ``*`` is one or more characters, a placeholder one label."""
    parts = re.split(r"(\*|\{[a-z_]+\})", template)
    return re.compile(
        "".join(
            ".+" if part == "*" else "[^.]+" if part.startswith("{") else re.escape(part)
            for part in parts
        )
    )


def row_parameters(row: Row) -> Iterator[str]:
    """The parameters that one row uses, repeats included."""
    for template in (*row.names, *row.tags):
        yield from placeholders(template).values()
    yield from filter(None, (row.networks_from, row.narrowed_by))
    yield from (condition.parameter for condition in row.when)
    yield from filter(None, (exemption.flag for exemption in row.not_needed))


def parameters_of(requirement: Requirement, cloud: str | None = None) -> tuple[str, ...]:
    """The parameters that a requirement takes, in one cloud or in any, in order of first use."""
    rows = requirement.rows if cloud is None else requirement.rows_of(cloud)
    found = (name for row in rows if not row.is_note for name in row_parameters(row))
    return tuple(dict.fromkeys(found))

"""The catalog as people and programs read it: tables and JSON objects.

Tables are laid out for the terminal, or for ``PIPE_WIDTH`` columns where there is none.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from egressproxy.catalog import CLOUDS, PARAMETERS, ExpandedRow, Requirement, Row, parameters_of

if TYPE_CHECKING:
    from egressproxy.ports import PortSpan

PIPE_WIDTH: Final = 140

_SHORT: Final = {"tls:443": "https", "http:80": "http"}


@dataclass(frozen=True, slots=True)
class Line:
    """A row as it is shown: its destinations filled in or as templates."""

    row: Row
    destinations: tuple[str, ...]

    @classmethod
    def of_row(cls, row: Row) -> Line:
        """A row with its templates unfilled."""
        return cls(row, row.destinations)

    @classmethod
    def of_expanded(cls, expanded: ExpandedRow) -> Line:
        """A row with its templates filled."""
        if expanded.any_destination:
            return cls(expanded.row, ("any address",))
        texts = (
            *map(str, expanded.patterns),
            *(f"tag:{tag}" for tag in expanded.tags),
            *map(str, expanded.networks),
        )
        return cls(expanded.row, texts)

    @property
    def need(self) -> str:
        """Whether a cluster needs it."""
        return "note only" if self.row.is_note else str(self.row.kind)

    @property
    def remarks(self) -> list[str]:
        """What a person must know besides the purpose."""
        row = self.row
        remarks = [f"when {condition}" for condition in row.when]
        remarks += [
            f"not needed {exemption.text}"
            + (f" ({exemption.flag}: true)" if exemption.flag else "")
            for exemption in row.not_needed
        ]
        if row.ours:
            remarks.append(f"ours: {row.ours}")
        since = [row.since, *(exemption.since for exemption in row.not_needed)]
        remarks += [f"as of: {one}" for one in since if one]
        if row.is_note:
            remarks.append(f"never allowed by this requirement; a deny's note: {row.note}")
        return remarks

    def as_json(self) -> dict[str, Any]:
        """The row's JSON object."""
        row = self.row
        return {
            "id": row.id,
            "cloud": row.cloud,
            "destinations": list(self.destinations),
            "ports": [str(span) for span in row.ports],
            "kind": str(row.kind),
            "purpose": row.purpose,
            "document": row.document,
            "section": row.section,
            "group": row.group,
            "via": row.via,
            "when": {condition.parameter: condition.value for condition in row.when},
            "not_needed": [
                {"text": one.text, "parameter": one.flag, "as_of": one.since}
                for one in row.not_needed
            ],
            "ours": row.ours,
            "as_of": row.since,
            "note": row.note,
        }


def summary(requirement: Requirement, cloud: str | None) -> dict[str, Any]:
    """A requirement's JSON object, without its rows."""
    return {
        "id": requirement.id,
        "title": requirement.title,
        "clouds": list(requirement.clouds),
        "parameters": {name: PARAMETERS[name].about for name in parameters_of(requirement, cloud)},
        "via": dict(requirement.vias),
        "default_via": requirement.default_via,
        "warning": requirement.warning,
    }


def print_list(requirements: list[Requirement], cloud: str | None) -> None:
    """Print what there is, a line a requirement."""
    console = _console()
    table = _table("Requirement", "What", "Clouds", "Parameters", "via (first is the default)")
    for one in requirements:
        names = ", ".join(parameters_of(one, cloud)) or "-"
        table.add_row(one.id, one.title, _clouds(one.clouds), names, _vias(one))
    with console.capture() as capture:
        console.print(table)
        console.print("\negressproxy catalog show REQUIREMENT says what each allows, and why.")
    _echo(capture.get())


def print_page(
    requirement: Requirement, cloud: str | None, lines: list[Line], *, is_filled: bool
) -> None:
    """Print one requirement; ``is_filled`` is whether alternatives are chosen already."""
    console = _console()
    with console.capture() as capture:
        console.print(f"[bold]{requirement.id}[/]  {escape(requirement.title)}")
        for title, of_cloud in _by_cloud(lines):
            console.print(f"\n[bold]{title}[/]")
            _print_rows(console, of_cloud, with_via=not is_filled)
        if requirement.warning:
            console.print(f"\nWarning: {escape(requirement.warning)}", style="yellow")
        if not is_filled:
            _print_choices(console, requirement, cloud)
    _echo(capture.get())


def _by_cloud(lines: list[Line]) -> list[tuple[str, list[Line]]]:
    """The lines of each cloud; once only where every cloud has the same."""
    clouds = {cloud: [line for line in lines if line.row.cloud == cloud] for cloud in CLOUDS}
    bare = [[replace(line, row=replace(line.row, cloud="")) for line in clouds[c]] for c in CLOUDS]
    if all(one == bare[0] for one in bare):
        return [("Every cloud", clouds[CLOUDS[0]])]
    return [(cloud, of_cloud) for cloud, of_cloud in clouds.items() if of_cloud]


def _print_rows(console: Console, lines: list[Line], *, with_via: bool) -> None:
    sources = {source: n for n, source in enumerate(dict.fromkeys(map(_source, lines)), 1)}
    table = _table("Row", "Destination", "Ports", "Need", "Source", "Why")
    for line in lines:
        via = [f"via {line.row.via}"] if with_via and line.row.via else []
        cells = (
            line.row.id.partition("#")[2],
            "\n".join(line.destinations),
            "\n".join(map(_port, line.row.ports)),
            line.need,
            str(sources[_source(line)]),
            "\n".join([line.row.purpose, *via, *line.remarks]),
        )
        table.add_row(*map(escape, cells))
    console.print(table)
    for (document, section), number in sources.items():
        console.print(escape(f"{number}  {document}: {section}"), style="dim")


def _print_choices(console: Console, requirement: Requirement, cloud: str | None) -> None:
    table = _table("Option", "Meaning")
    for via, about in requirement.vias.items():
        table.add_row(f"--via {via}", about + _default(via == requirement.default_via))
    for name in parameters_of(requirement, cloud):
        parameter = PARAMETERS[name]
        example = parameter.example.strip("[]").replace(", ", ",")
        is_said = parameter.default not in (None, False)
        default = _default(is_said, str(parameter.default))
        table.add_row(f"--set {name}={example}", parameter.about + default)
    if table.row_count:
        console.print()
        console.print(table)


def _default(is_said: bool, value: str = "") -> str:
    return f" (the default{' is ' if value else ''}{value})" if is_said else ""


def _source(line: Line) -> tuple[str, str]:
    return line.row.document, line.row.section


def _port(span: PortSpan) -> str:
    return _SHORT.get(str(span), str(span))


def _clouds(clouds: tuple[str, ...]) -> str:
    return "all" if clouds == CLOUDS else ", ".join(clouds)


def _vias(requirement: Requirement) -> str:
    if not requirement.vias:
        return "-"
    if requirement.default_via is None:
        return "choose: " + ", ".join(requirement.vias)
    return ", ".join(requirement.vias)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in {"Row", "Ports", "Requirement"})
    return table


def _echo(text: str) -> None:
    click.echo("\n".join(line.rstrip() for line in text.splitlines()))


def _console() -> Console:
    """Colours on a terminal only (``NO_COLOR`` is honoured); a fixed width in a pipe."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, highlight=False, soft_wrap=False)

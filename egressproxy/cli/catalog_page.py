"""The catalog as people and programs read it: tables and JSON objects.

Tables are laid out for the terminal, or for ``PIPE_WIDTH`` columns where there is none.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from egressproxy.catalog import CLOUDS, PARAMETERS, Requirement, parameters_of
from egressproxy.catalog.lines import Line, by_cloud

if TYPE_CHECKING:
    from egressproxy.ports import PortSpan

PIPE_WIDTH: Final = 140

_SHORT: Final = {"tls:443": "https", "http:80": "http"}


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
        for title, of_cloud in by_cloud(lines):
            console.print(f"\n[bold]{title}[/]")
            _print_rows(console, of_cloud, with_via=not is_filled)
        if requirement.warning:
            console.print(f"\nWarning: {escape(requirement.warning)}", style="yellow")
        if not is_filled:
            _print_choices(console, requirement, cloud)
    _echo(capture.get())


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

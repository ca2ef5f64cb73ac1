"""The options that say how flows are listed: grouped, sorted, cut, as text, JSON or CSV."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from egressproxy.review.model import Group

if TYPE_CHECKING:
    from collections.abc import Callable

_FOR_DENIES: Final = (Group.CLASS,)
_BY_CLASS: Final = (Group.NAME, Group.SOURCE, Group.CLASS)
_OF_REPORTS: Final = ("group_by", "sort", "limit")


def listing_options(*, is_classed: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command its options, and its function ``form`` (``text``, ``json``, ``csv``).

    ``is_classed`` is whether its flows have classes.
    """
    groups = [str(each) for each in Group if is_classed or each not in _FOR_DENIES]
    orders = ["class", "count", "last"] if is_classed else ["count", "last"]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option(
            "--group-by",
            type=click.Choice(groups),
            default=str(Group.NAME),
            show_default=True,
            help="What there is a line for.",
        )
        @click.option(
            "--sort",
            type=click.Choice(orders),
            help="The most urgent class (default for names, sources and classes), the most flows"
            " (default for others), or the latest first."
            if is_classed
            else "The most flows (default), or the latest first.",
        )
        @click.option(
            "--limit",
            type=click.IntRange(min=0),
            metavar="N",
            help="Lines; 0 is all. Default: 30 on a terminal, else all.",
        )
        @click.option(
            "--json", "as_json", is_flag=True, help="One JSON object; with --follow one a line."
        )
        @click.option("--csv", "as_csv", is_flag=True, help="CSV with a heading.")
        @click.option("--follow", "-f", "is_live", is_flag=True, help="Print flows as they come.")
        @functools.wraps(command)
        def with_form(
            *args: Any, sort: str | None, as_json: bool, as_csv: bool, is_live: bool, **kwargs: Any
        ) -> None:
            if as_json and as_csv:
                raise click.UsageError("--json and --csv: give one of them")
            if as_csv and is_live:
                raise click.UsageError("--follow prints text, or with --json a JSON object a line")
            if is_live and (given := _given(_OF_REPORTS)):
                raise click.UsageError(f"--follow prints every flow as it comes: leave out {given}")
            if sort is None:
                sort = "class" if is_classed and kwargs["group_by"] in _BY_CLASS else "count"
            form = "json" if as_json else "csv" if as_csv else "text"
            command(*args, form=form, sort=sort, is_live=is_live, **kwargs)

        return with_form

    return decorate


def _given(names: tuple[str, ...]) -> str:
    """Those of some options that are on the command line, as they are written there."""
    source_of = click.get_current_context().get_parameter_source
    typed = (name for name in names if source_of(name) is ParameterSource.COMMANDLINE)
    return ", ".join(f"--{name.replace('_', '-')}" for name in typed)

"""What ``denies`` and ``flows`` have in common: a question, its report, and how it is printed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from egressproxy.cli.review_page import Layout, classes_row, number, rows, summary
from egressproxy.review import queries
from egressproxy.review.ask import describe, query_of
from egressproxy.review.formats import lines_as_csv, report_as_json, stamp
from egressproxy.review.model import Class, Filter, Group
from egressproxy.review.report import Report, report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.cli.store_option import Records
    from egressproxy.review.report import Findings, Order

TERMINAL_LINES: Final = 30
"""Lines of a report on a terminal unless asked for otherwise; everything in a pipe."""
MIN_WIDTH: Final = 60
_WITH_POLICY: Final = "hint: --policy FILE tells near misses, and what that policy allows by now"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """How flows are listed; ``form`` is ``text``, ``json`` or ``csv``.

    ``is_folded``: names alike below one suffix are one line, of a text. ``has_policy``: classes are
    as a policy sees them, or there are none; where not, a person is told what one would add.
    """

    where: Filter
    by: Group
    order: Order
    limit: int | None
    form: str
    now: float
    is_folded: bool = False
    has_policy: bool = True


def print_listing(records: Records, listing: Listing, classifier: Findings | None) -> Report:
    """Print a report on stdout, what is said about it on stderr.

    Raises:
        StoreError: as the queries do.
    """
    width = terminal_width()
    limit = listing.limit
    if limit is None:
        limit = TERMINAL_LINES if width and listing.form == "text" else 0
    found = report(
        records.store,
        listing.where,
        listing.by,
        limit=limit,
        classifier=classifier,
        order=listing.order,
        is_folded=listing.is_folded and listing.form == "text" and not listing.where.names,
    )
    match listing.form:
        case "json":
            asked = {"filter": query_of(listing.where)}
            click.echo(json.dumps(asked | report_as_json(found, listing.by), indent=2))
        case "csv":
            for row in lines_as_csv(found.lines, listing.by):
                click.echo(row, nl=False)
            _print_remarks(found, records)
        case _:
            _print_text(found, records, listing, width)
    return found


def terminal_width() -> int | None:
    """The columns of the terminal on stdout; ``None`` where it is none."""
    if not sys.stdout.isatty():
        return None
    return max(shutil.get_terminal_size().columns, MIN_WIDTH)


def colour() -> bool | None:
    """What ``click.echo`` is told: no colours where ``NO_COLOR`` is set, else as the stream is."""
    return False if os.environ.get("NO_COLOR") else None


def _print_text(found: Report, records: Records, listing: Listing, width: int | None) -> None:
    if not found.lines:
        for line in _nothing(records, listing):
            click.echo(line, err=True)
        return
    has_classes = bool(found.classes) and listing.by in (Group.NAME, Group.SOURCE)
    layout = Layout(
        width=width,
        by=listing.by,
        now=listing.now,
        is_denied=bool(listing.where.is_denied),
        has_classes=has_classes and listing.order == "class",
    )
    click.echo(f"{_title(listing)}: {summary(found)}", err=True, color=colour())
    if has_classes:
        click.echo(classes_row(found), err=True, color=colour())
    click.echo(err=True)
    for row in rows(found, layout):
        click.echo(row, color=colour())
    _print_remarks(found, records)
    is_unsure = any(each.kind is Class.UNKNOWN for each in found.classes)
    if width and is_unsure and not listing.has_policy:
        click.echo(f"\n{_WITH_POLICY}", err=True)


def _title(listing: Listing) -> str:
    what = "denied" if listing.where.is_denied else "allowed"
    return f"{what}, {describe(listing.where, listing.now)} (UTC)"


def _print_remarks(found: Report, records: Records) -> None:
    for line in _remarks(found, records):
        click.echo(f"\n{line}", err=True)


def _remarks(found: Report, records: Records) -> Iterator[str]:
    if found.more and len(found.lines) >= queries.MAX_GROUPS:
        yield f"{number(found.more, 'more line')}: narrow it with --since, --from or --name"
    elif found.more:
        yield f"{number(found.more, 'more line')}: --limit 0 shows all"
    if found.is_cut:
        yield (
            f"only the commonest {queries.MAX_SUBJECTS:,} combinations were read:"
            " narrow it with --since, --from or --name"
        )
    if records.skipped:
        yield f"{number(records.skipped, 'older record')} of the log left out: --since takes more"


def _nothing(records: Records, listing: Listing) -> Iterator[str]:
    """Why there may be nothing, and what to do."""
    what = "denied" if listing.where.is_denied else "recorded as allowed"
    yield f"nothing was {what}: {describe(listing.where, listing.now)}, in {records.place}"
    if records.skipped:
        yield f"hint: {number(records.skipped, 'record')} of the log are older: --since 30d"
        return
    everything = queries.totals(records.store, Filter(is_denied=listing.where.is_denied))
    if everything.first_at is not None and everything.last_at is not None:
        yield (
            f"hint: without conditions there are {number(everything.flows, 'flow')},"
            f" from {stamp(everything.first_at)} to {stamp(everything.last_at)}"
        )
    elif queries.totals(records.store, Filter(is_denied=None)).flows:
        kind = "denies" if listing.where.is_denied else "allowed flows"
        yield f"hint: it holds no {kind} at all" + (
            "" if listing.where.is_denied else "; the gateway's option is --log-allows"
        )
    elif records.is_of_logs:
        yield "hint: there are no flow records in it, which are lines of JSON"
    else:
        yield "hint: it holds no records yet; does the gateway run with this --review-store?"

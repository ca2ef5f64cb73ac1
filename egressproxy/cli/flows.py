"""``egressproxy flows``: what was allowed, for whom, how often, how much."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, cast

import click

from egressproxy.cli.filter_options import filter_of, filter_options
from egressproxy.cli.follow import follow
from egressproxy.cli.listing import Listing, print_listing
from egressproxy.cli.listing_options import listing_options
from egressproxy.cli.main import EXIT_DENY
from egressproxy.cli.store_option import Place, place_options
from egressproxy.review.ask import DEFAULT_SINCE
from egressproxy.review.model import Group

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from egressproxy.review.report import Order

EXAMPLES: Final = """\b
egressproxy flows --since 1h
egressproxy flows --group-by rule --since 7d
egressproxy flows --name '*.blob.core.windows.net' --group-by source
egressproxy flows --reason dial_timeout,dial_failed,resolve_failed
"""


@click.command(epilog=EXAMPLES)
@place_options
@filter_options(since=DEFAULT_SINCE, without=["class"])
@listing_options(is_classed=False)
@click.option("--exit-code", is_flag=True, help="End with 1 if there is a line to show.")
def command(
    *,
    place: Place,
    texts: Mapping[str, Sequence[str]],
    group_by: str,
    sort: str,
    limit: int | None,
    form: str,
    is_live: bool,
    exit_code: bool,
) -> None:
    """What was allowed: a line for each name, the commonest first.

    As far as allows were recorded. Flows that were allowed and then failed are here too, by their
    reason. Beyond two hours, times are whole hours, UTC. Ends with 0, and with 2 where something
    cannot be read.
    """
    now = time.time()
    where = filter_of(texts, now, action="allow")
    with place.opened(now=now, since=where.since) as records:
        if is_live:
            follow(records, where, None, is_json=form == "json")
            return
        listing = Listing(
            where=where,
            by=Group(group_by),
            order=cast("Order", sort),
            limit=limit,
            form=form,
            now=now,
        )
        found = print_listing(records, listing, None)
    if exit_code and found.lines:
        sys.exit(EXIT_DENY)

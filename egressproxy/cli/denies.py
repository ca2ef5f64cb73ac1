"""``egressproxy denies``: what was refused, to whom, how often, and what each is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, cast

import click

from egressproxy.cli.classes import classifier_of, policy_option
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
    from pathlib import Path

    from egressproxy.review.report import Order

EXAMPLES: Final = """\b
egressproxy denies
egressproxy denies --since 7d --from 10.240.0.0/16 --name '*.azure.com' --policy policy.yaml
egressproxy denies --group-by source --class suspicious
egressproxy denies --follow
egressproxy denies --log /var/log/egressproxy/flows.jsonl* --since 30d --csv > denies.csv
"""


@click.command(epilog=EXAMPLES)
@place_options
@filter_options(since=DEFAULT_SINCE)
@listing_options(is_classed=True)
@policy_option
@click.option(
    "--allow-outside", is_flag=True, help="Files outside the policy's folder may be named."
)
@click.option(
    "--fold/--no-fold",
    "is_folded",
    default=True,
    help="Names alike below one suffix as one line (*.suffix) of a text. Default; not with --name.",
)
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
    policy_file: Path | None,
    allow_outside: bool,
    is_folded: bool,
    exit_code: bool,
) -> None:
    """What was denied, to whom, how often, and what each of it is.

    A line for each name, the most urgent first; what audit let pass is here too. Classes:
    suspicious, missing requirement (the catalog has it, the policy has not), near miss (a rule
    differs in one thing), unknown, optional, harmless. Beyond two hours, times are whole hours,
    UTC. Ends with 0, and with 2 where something cannot be read.
    """
    now = time.time()
    where = filter_of(texts, now)
    with place.opened(now=now, since=where.since) as records:
        classifier = classifier_of(
            records.store, where, policy_file, allow_outside=allow_outside, now=now
        )
        if is_live:
            follow(records, where, classifier, is_json=form == "json")
            return
        listing = Listing(
            where=where,
            by=Group(group_by),
            order=cast("Order", sort),
            limit=limit,
            form=form,
            now=now,
            is_folded=is_folded,
            has_policy=policy_file is not None,
        )
        found = print_listing(records, listing, classifier)
    if exit_code and found.lines:
        sys.exit(EXIT_DENY)

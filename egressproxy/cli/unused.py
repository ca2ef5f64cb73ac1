"""``egressproxy unused``: rules and requirements that no flow used."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

import click

from egressproxy.cli.listing import colour
from egressproxy.cli.store_option import Place, place_options
from egressproxy.cli.target import policy_option
from egressproxy.cli.unused_page import as_json, rows
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.review.history import rule_history
from egressproxy.review.unused import DAY_S, rule_uses

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES: Final = """\b
egressproxy unused --policy policy.yaml
egressproxy unused --policy policy.yaml --days 90 --rows
egressproxy unused --policy policy.yaml --log flows.jsonl --json
"""


@click.command(epilog=EXAMPLES)
@place_options
@policy_option
@click.option(
    "--allow-outside", is_flag=True, help="Files outside the policy's folder may be named."
)
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=30,
    show_default=True,
    metavar="N",
    help="How far back.",
)
@click.option(
    "--rows", "with_rows", is_flag=True, help="Show the unused rows of requirements in use too."
)
@click.option("--json", "is_json", is_flag=True, help="One JSON object: every rule with its use.")
def command(
    *,
    place: Place,
    policy_file: Path,
    allow_outside: bool,
    days: int,
    with_rows: bool,
    is_json: bool,
) -> None:
    """Rules and requirements that no flow used in N days, as far as records can tell.

    A rule is used where a recorded flow was or would be decided by it, or the kernel counted
    packets for it. Where allows are not recorded, or a sample of them, the use of an allow rule is
    unknown, and said to be. Ends with 0, and with 2 where something cannot be read.
    """
    now = time.time()
    policy = load_policy(policy_file, allow_outside=allow_outside)
    since = now - days * DAY_S
    with place.opened(now=now, since=since) as records:
        history = rule_history(records.store, since=since)
    uses = rule_uses(policy, compile_policy(policy), history, now)
    if is_json:
        click.echo(json.dumps(as_json(uses), indent=2))
        return
    for remark in uses.remarks:
        click.echo(f"note: {remark}", err=True)
    click.echo(f"{policy_file}, {min(uses.days, days):.0f} of the last {days} days:", err=True)
    for row in rows(uses, with_rows=with_rows):
        click.echo(row, color=colour())

"""``egressproxy replay``: recorded flows under another policy."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from egressproxy.cli.filter_options import filter_of, filter_options
from egressproxy.cli.listing import colour
from egressproxy.cli.main import EXIT_DENY
from egressproxy.cli.replay_page import as_json, rows
from egressproxy.cli.store_option import Place, place_options
from egressproxy.errors import EgressproxyError
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.review.ask import describe
from egressproxy.review.queries import MAX_SUBJECTS, subjects
from egressproxy.review.replay import replay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BLIND: Final = "no allowed flow is recorded"
_HINT: Final = "the gateway's option is --log-allows"

EXAMPLES: Final = """\b
egressproxy replay --policy candidate.yaml
egressproxy replay --policy candidate.yaml --against policy.yaml --since 24h
egressproxy replay --policy candidate.yaml --fail-if-newly-denied 0 --log flows.jsonl
"""


@click.command(epilog=EXAMPLES)
@place_options
@filter_options(since="7d", without=("class",))
@click.option(
    "--policy",
    "policy_file",
    required=True,
    type=click.Path(path_type=Path),
    metavar="CANDIDATE",
    help="The policy to try.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare with this policy. Default: with what was recorded.",
)
@click.option(
    "--allow-outside", is_flag=True, help="Files outside the policy's folder may be named."
)
@click.option(
    "--fail-if-newly-denied",
    "most",
    type=click.IntRange(0),
    metavar="N",
    help="End with 1 where more than N flows are newly denied.",
)
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    metavar="N",
    help="Rows of each kind; 0 is all.",
)
@click.option("--json", "is_json", is_flag=True, help="One JSON object.")
def command(
    *,
    place: Place,
    texts: Mapping[str, Sequence[str]],
    policy_file: Path,
    against: Path | None,
    allow_outside: bool,
    most: int | None,
    limit: int,
    is_json: bool,
) -> None:
    """What a policy would have done with recorded flows: newly allowed, newly denied, unchanged.

    Both denies and allows are replayed, as far as they were recorded (--log-allows). Bytes that
    were refused stay refused. Ends with 0, with 1 as --fail-if-newly-denied says, and with 2 where
    something cannot be read, or that was asked and no allow is recorded.
    """
    now = time.time()
    where = filter_of(texts, now, action="any")
    new = compile_policy(load_policy(policy_file, allow_outside=allow_outside))
    old = None
    if against is not None:
        old = compile_policy(load_policy(against, allow_outside=allow_outside))
    with place.opened(now=now, since=where.since) as records:
        counts = subjects(records.store, where)
    found = replay(counts, old, new, now)
    if is_json:
        click.echo(json.dumps(as_json(found), indent=2))
    else:
        compared = f"{against}" if against is not None else "what was recorded"
        asked = f"{describe(where, now)} (UTC)"
        click.echo(f"{policy_file} against {compared}, {asked}: {found.flows:,} flows", err=True)
        for row in rows(found, limit or None):
            click.echo(row, color=colour())
    if len(counts) == MAX_SUBJECTS:
        click.echo(f"only the commonest {MAX_SUBJECTS:,} combinations were replayed", err=True)
    if all(count.subject.is_denied for count in counts):
        if most is not None:
            raise EgressproxyError(f"{_BLIND}: --fail-if-newly-denied has no answer", hint=_HINT)
        click.echo(f"{_BLIND}: what would be newly denied cannot be seen ({_HINT})", err=True)
    if most is not None and found.newly_denied_flows > most:
        click.echo(f"newly denied: {found.newly_denied_flows:,} flows, {most:,} allowed", err=True)
        sys.exit(EXIT_DENY)

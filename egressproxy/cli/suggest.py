"""``egressproxy suggest``: what to add to a policy for what it denied, as YAML."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from egressproxy.cli.filter_options import filter_of, filter_options
from egressproxy.cli.listing import MIN_WIDTH, colour
from egressproxy.cli.store_option import Place, place_options
from egressproxy.cli.suggest_page import as_json, heading, withheld_rows, yaml_rows
from egressproxy.cli.target import policy_option
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.review.ask import describe
from egressproxy.review.behaviour import observe_behaviour
from egressproxy.review.classify import Classifier
from egressproxy.review.eligible import Limits
from egressproxy.review.queries import MAX_SUBJECTS, subjects
from egressproxy.review.suggest import suggest
from egressproxy.review.write_policy import Written, include_text, write_include

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from egressproxy.review.model import Filter

EXAMPLES: Final = """\b
egressproxy suggest --policy policy.yaml
egressproxy suggest --policy policy.yaml --since 24h --from 10.240.0.0/16
egressproxy suggest --policy policy.yaml --mine myregistry.azurecr.io --write suggested.yaml
egressproxy suggest --policy policy.yaml --log flows.jsonl > suggested.yaml
"""


@click.command(epilog=EXAMPLES)
@place_options
@filter_options(since="7d", without=("class",))
@policy_option
@click.option(
    "--allow-outside", is_flag=True, help="Files outside the policy's folder may be named."
)
@click.option(
    "--write",
    "target",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write an include file, or add to one that suggest wrote; never to another.",
)
@click.option(
    "--mine",
    multiple=True,
    metavar="NAME",
    help="Your own name where any customer can have one (an account, a registry); *.NAME too.",
)
@click.option(
    "--at-least",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Leave out targets with fewer flows.",
)
@click.option("--optional", is_flag=True, help="Suggest what is documented as optional too.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object.")
def command(
    *,
    place: Place,
    texts: Mapping[str, Sequence[str]],
    policy_file: Path,
    allow_outside: bool,
    target: Path | None,
    mine: tuple[str, ...],
    at_least: int,
    optional: bool,
    is_json: bool,
) -> None:
    """The fewest additions to a policy that let through what was denied for want of a rule.

    Requirements of the catalog first, then exact names; wildcards only where a label's shape (hash,
    region, random) shows that it varies; addresses last. What is suspicious is never suggested. The
    YAML goes to stdout, what is not suggested and why to stderr. Ends with 0, also where there is
    nothing to suggest, and with 2 where something cannot be read or written.
    """
    now = time.time()
    where = filter_of(texts, now)
    policy = load_policy(policy_file, allow_outside=allow_outside)
    ruleset = compile_policy(policy)
    with place.opened(now=now, since=where.since) as records:
        counts = subjects(records.store, where)
        behaviour = observe_behaviour(records.store, where.since, where.until)
    classifier = Classifier(policy, ruleset, behaviour, now=now)
    limits = Limits(mine=mine, at_least=at_least, with_optional=optional)
    found = suggest(counts, policy, ruleset, classifier, now, limits=limits)
    if not (is_json or counts):
        click.echo(f"nothing was denied: {_asked(where, now)}", err=True)
    elif not is_json:
        denied = sum(count.count for count in counts)
        click.echo(f"{policy_file}, {_asked(where, now)}: {heading(found, denied)}", err=True)
        if len(counts) == MAX_SUBJECTS:
            click.echo(f"only the commonest {MAX_SUBJECTS:,} combinations were read", err=True)
    written = write_include(target, found, policy, now) if target is not None else None
    if is_json:
        click.echo(json.dumps(as_json(found), indent=2))
    elif written is None:
        if sys.stdout.isatty():
            click.echo(err=True)
        for row in yaml_rows(include_text(found, now)):
            click.echo(row, color=colour())
    for row in () if is_json else withheld_rows(found, _width()):
        click.echo(row, err=True, color=colour())
    for row in () if written is None else _told(written, policy_file):
        click.echo(row, err=True)


def _width() -> int | None:
    """The columns of the terminal that stderr is, if it is one."""
    if not sys.stderr.isatty():
        return None
    return max(os.get_terminal_size(sys.stderr.fileno()).columns, MIN_WIDTH)


def _asked(where: Filter, now: float) -> str:
    return f"{describe(where, now)} (UTC)"


def _told(written: Written, policy_file: Path) -> Iterator[str]:
    """What was written, and what is left to do."""
    if not written.added:
        yield f"{written.path}: nothing to add"
        return
    kept = f", {written.kept} kept" if written.kept else ""
    yield f"{written.path}: {written.added} added{kept}"
    if written.is_included:
        yield f"{policy_file} includes it already"
    elif written.include:
        yield f"to use it, add to {policy_file}:  include: [{written.include}]"
    else:
        yield f"it cannot be included: move it to the folder of {policy_file}, or below"
    yield f"then try it:  egressproxy replay --policy {policy_file}"

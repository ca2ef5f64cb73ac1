"""What ``replay`` prints: rows of what changes, and its JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from egressproxy.cli.review_page import number
from egressproxy.review.formats import printable, stamp
from egressproxy.review.judging import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from egressproxy.review.replay import Change, Replay

MAX_SOURCES: Final = 2
"""Client addresses of a row."""


def rows(found: Replay, limit: int | None) -> Iterator[str]:
    """Rows for stdout, what is newly denied first; at most ``limit`` of each kind."""
    parts = (
        ("newly denied", "red", found.newly_denied),
        ("newly allowed", "green", found.newly_allowed),
        ("by audit alone", "yellow", found.newly_audited),
    )
    for title, color, changes in parts:
        flows = sum(change.count for change in changes)
        targets = len({change.target for change in changes})
        said = f"{number(flows, 'flow')} to {number(targets, 'name')}" if changes else "nothing"
        if changes or title != "by audit alone":
            yield f"{click.style(f'{title:<14}', fg=color, bold=True)}  {said}"
        yield from _changes(changes[:limit])
        if limit is not None and len(changes) > limit:
            yield f"  … {number(len(changes) - limit, 'more row')}: --limit 0 shows all"
    same = f"{found.unchanged_allowed:,} allowed, {found.unchanged_denied:,} denied"
    yield f"{'unchanged':<14}  {same}"
    for place, (why, count) in enumerate(found.unjudged):
        yield f"{'' if place else 'not judged':<14}  {count:,}: {why.value}"


def _changes(changes: Sequence[Change]) -> Iterator[str]:
    cells = [
        (
            f"{change.count:,}",
            printable(change.target) or "(no name)",
            printable(f"{change.protocol}:{change.port}"),
            _sources(change),
            _why(change),
        )
        for change in changes
    ]
    widths = [max((len(row[column]) for row in cells), default=0) for column in range(4)]
    for count, target, port, sources, why in cells:
        yield (
            f"  {count:>{widths[0]}}  {target:<{widths[1]}}  {port:<{widths[2]}}"
            f"  {sources:<{widths[3]}}  {why}"
        )


def _sources(change: Change) -> str:
    shown = ", ".join(map(printable, change.sources[:MAX_SOURCES]))
    more = change.source_count - min(MAX_SOURCES, len(change.sources))
    return f"{shown} +{more:,}" if more else shown


def _why(change: Change) -> str:
    """The rule that decides now, or why none does; and the one that did."""
    by = printable(change.rule or str(change.reason))
    if change.after is Outcome.AUDIT:
        by = f"audit ({by})"
    elif change.before is Outcome.AUDIT and change.after is Outcome.ALLOW:
        by = f"{by}, was audit"
    return f"{by}, was {printable(change.old_rule)}" if change.old_rule else by


def as_json(found: Replay) -> dict[str, Any]:
    """All of it; times are RFC 3339 in UTC."""
    return {
        "flows": found.flows,
        "newly_denied_flows": found.newly_denied_flows,
        "newly_allowed_flows": found.newly_allowed_flows,
        "newly_audited_flows": found.newly_audited_flows,
        "unchanged_allowed_flows": found.unchanged_allowed,
        "unchanged_denied_flows": found.unchanged_denied,
        "unjudged": {why.value: count for why, count in found.unjudged},
        "newly_denied": list(map(_as_object, found.newly_denied)),
        "newly_allowed": list(map(_as_object, found.newly_allowed)),
        "newly_audited": list(map(_as_object, found.newly_audited)),
    }


def _as_object(change: Change) -> dict[str, Any]:
    return {
        "target": change.target,
        "protocol": change.protocol,
        "port": change.port,
        "flows": change.count,
        "sources": list(change.sources),
        "source_count": change.source_count,
        "before": str(change.before),
        "after": str(change.after),
        "rule": change.rule,
        "old_rule": change.old_rule,
        "reason": str(change.reason),
        "first_seen": stamp(change.first_at),
        "last_seen": stamp(change.last_at),
    }

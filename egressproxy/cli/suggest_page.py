"""What ``suggest`` prints around its YAML, and its JSON."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

import click

from egressproxy.cli.review_page import number
from egressproxy.review.formats import printable, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from egressproxy.review.suggestion import Suggestion

MAX_TARGETS: Final = 3
"""Names of a row of what is not suggested."""
MAX_ROWS: Final = 20
_INDENT: Final = " " * 6


def heading(found: Sequence[Suggestion], denied: int) -> str:
    """The sums in one row; ``denied`` is the number of denied flows in all."""
    offered = [each for each in found if each.is_offered]
    if not offered:
        return f"nothing to suggest for {number(denied, 'denied flow')}"
    verb = "lets" if len(offered) == 1 else "let"
    opened = f"{_flows(offered):,} of {number(denied, 'denied flow')}"
    return f"{number(len(offered), 'addition')} {verb} {opened} through"


def yaml_rows(text: str) -> Iterator[str]:
    """The lines of YAML, comments dim."""
    for line in text.splitlines():
        yield click.style(line, dim=True) if line.lstrip().startswith("#") else line


def withheld_rows(found: Sequence[Suggestion], width: int | None) -> Iterator[str]:
    """What is not suggested, a row for each reason, the commonest first; as wide as a terminal."""
    groups: dict[str, list[Suggestion]] = {}
    for each in found:
        if not each.is_offered:
            groups.setdefault(each.why, []).append(each)
    if not groups:
        return
    yield ""
    yield click.style("not suggested", bold=True)
    ranked = sorted(groups.items(), key=lambda item: -_flows(item[1]))
    for why, group in ranked[:MAX_ROWS]:
        targets = ", ".join(printable(each.title) for each in group[:MAX_TARGETS])
        more = f" and {len(group) - MAX_TARGETS:,} more" if len(group) > MAX_TARGETS else ""
        yield f"  {number(_flows(group), 'flow')} to {targets}{more}"
        yield from _within(width, printable(why))
    if len(ranked) > MAX_ROWS:
        yield f"  {number(len(ranked) - MAX_ROWS, 'more reason')}: --json has them"


def _within(width: int | None, text: str) -> list[str]:
    if width is None:
        return [f"{_INDENT}{text}"]
    rows = textwrap.wrap(text, width - len(_INDENT), break_long_words=False, break_on_hyphens=False)
    return [f"{_INDENT}{row}" for row in rows]


def _flows(group: Sequence[Suggestion]) -> int:
    return sum(each.evidence.flows for each in group)


def as_json(found: Sequence[Suggestion]) -> dict[str, Any]:
    """All suggestions, and all that is withheld."""
    return {
        "suggestions": [_as_object(each) for each in found if each.is_offered],
        "withheld": [_as_object(each) for each in found if not each.is_offered],
    }


def _as_object(suggestion: Suggestion) -> dict[str, Any]:
    evidence = suggestion.evidence
    return {
        "kind": str(suggestion.kind),
        "title": suggestion.title,
        "why": suggestion.why,
        "risk": suggestion.risk,
        "flows": evidence.flows,
        "targets": list(evidence.targets),
        "target_count": evidence.target_count,
        "sources": list(evidence.sources),
        "source_count": evidence.source_count,
        "first_seen": stamp(evidence.first_at),
        "last_seen": stamp(evidence.last_at),
        "yaml": suggestion.yaml,
    }

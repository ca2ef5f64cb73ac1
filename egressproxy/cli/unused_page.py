"""What ``unused`` prints: what nothing used, what cannot be told, and its JSON."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import click

from egressproxy.cli.review_page import number
from egressproxy.review.formats import printable, stamp
from egressproxy.review.unused import Use

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from egressproxy.review.unused import RequirementUse, RuleUse, Uses

MAX_ROWS: Final = 5
"""Rows of a requirement in use that are named as unused."""


def rows(uses: Uses, *, with_rows: bool) -> Iterator[str]:
    """Rows for stdout; ``with_rows`` shows every unused row of requirements in use."""
    unused = list(chain(_requirements(uses, Use.UNUSED), _written(uses, Use.UNUSED)))
    unknown = list(chain(_requirements(uses, Use.UNKNOWN), _written(uses, Use.UNKNOWN)))
    states = [*(each.use for each in uses.requirements), *(each.use for each in uses.written)]
    used = states.count(Use.USED)
    yield _heading("unused", "yellow", len(unused))
    yield from _table(unused)
    yield from _unused_rows(uses, with_rows=with_rows)
    if unknown:
        yield _heading("unknown", "cyan", len(unknown))
        yield from _table(unknown)
    yield _heading("used", "green", used)


def _heading(title: str, color: str, count: int) -> str:
    said = f"{count:,} rules and requirements" if count != 1 else "1 rule or requirement"
    return f"{click.style(f'{title:<8}', fg=color, bold=True)} {said if count else 'nothing'}"


_Row = tuple[str, str, str]


def _requirements(uses: Uses, use: Use) -> Iterator[_Row]:
    for each in uses.requirements:
        if each.use is use:
            why = next((row.why for row in each.rows if row.why), "")
            yield each.requirement, str(each.rows[0].rule.origin), why


def _written(uses: Uses, use: Use) -> Iterator[_Row]:
    for each in uses.written:
        if each.use is use:
            yield each.rule.id, str(each.rule.origin), each.why


def _table(found: list[_Row]) -> Iterator[str]:
    width = max((len(name) for name, _, _ in found), default=0)
    for name, origin, why in found:
        text = f"  {printable(name):<{width}}  {click.style(printable(origin), dim=True)}"
        yield f"{text}  {printable(why)}".rstrip()


def _unused_rows(uses: Uses, *, with_rows: bool) -> Iterator[str]:
    for each in uses.requirements:
        idle = [row for row in each.rows if row.use is Use.UNUSED]
        if each.use is not Use.USED or not idle:
            continue
        yield f"  {each.requirement} is used, {len(idle)} of {number(len(each.rows), 'row')} not"
        shown = idle if with_rows else idle[:MAX_ROWS]
        for row in shown:
            yield f"    {printable(row.rule.id)}"
        if len(idle) > len(shown):
            yield f"    … {len(idle) - len(shown)} more: --rows shows all"


def as_json(uses: Uses) -> dict[str, Any]:
    """Every rule and requirement with its use."""
    return {
        "days": round(uses.days, 2),
        "remarks": list(uses.remarks),
        "requirements": [_requirement(each) for each in uses.requirements],
        "rules": _objects(uses.written),
    }


def _requirement(each: RequirementUse) -> dict[str, Any]:
    return {"id": each.requirement, "use": str(each.use), "rows": _objects(each.rows)}


def _objects(found: Iterable[RuleUse]) -> list[dict[str, Any]]:
    return [
        {
            "id": each.rule.id,
            "origin": str(each.rule.origin),
            "use": str(each.use),
            "flows": each.flows,
            "packets": each.packets,
            "last_seen": None if each.last_at is None else stamp(each.last_at),
            "why": each.why,
        }
        for each in found
    ]

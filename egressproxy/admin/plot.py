"""A plot of flows over time as geometry: stacked bars, ticks with round numbers, times in UTC.

The template draws it as SVG; here is what goes where, in the units of its ``viewBox``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from egressproxy.admin.render import short_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.review.model import Point

WIDE: Final = 1000
NARROW: Final = 380
HEIGHT: Final = 210
MAX_BARS: Final = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 6, 8, 22
_LABEL: Final = 62
"""Width that a label of the time axis wants."""
_GAP: Final = 0.18
"""Of a bar's place that stays empty."""
_DAY_S: Final = 86400
_STEPS_S: Final = (60, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600, _DAY_S, 2 * _DAY_S, 7 * _DAY_S)


@dataclass(frozen=True, slots=True)
class Part:
    """One colour of a bar."""

    kind: str
    count: int
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One bucket, from ``since`` up to ``until`` (POSIX seconds)."""

    x: float
    width: float
    place_x: float
    place_width: float
    since: float
    until: float
    count: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of the grid, or a moment, with what stands beside it."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Everything to draw; ``left`` to ``right`` and ``top`` to ``bottom`` is where bars are."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    bars: tuple[Bar, ...]
    levels: tuple[Tick, ...]
    times: tuple[Tick, ...]


def plot(
    points: Sequence[Point],
    *,
    since: float,
    until: float,
    step_s: int,
    kinds: Sequence[str],
    other: str = "",
    width: int = WIDE,
) -> Plot:
    """Lay out a series.

    Args:
        points: of buckets that begin at multiples of ``step_s``; those without flows may lack.
        since: the beginning of the axis.
        until: its end.
        step_s: width of a bucket, seconds; grown where there would be more than ``MAX_BARS``.
        kinds: the parts from bottom to top.
        other: the kind that parts count as whose own is none of these; the first one by default.
        width: of the whole drawing.
    """
    first = math.floor(since / step_s)
    places = max(1, min(MAX_BARS, math.ceil(until / step_s) - first))
    counts = [dict.fromkeys(kinds, 0) for _ in range(places)]
    for point in points:
        place = int(point.at // step_s) - first
        if 0 <= place < places:
            for kind, count in point.parts:
                counts[place][kind if kind in kinds else other or kinds[0]] += count
    left, right, bottom = _LEFT, width - _RIGHT, HEIGHT - _BOTTOM
    top_level, levels = _levels(max(sum(each.values()) for each in counts))
    scale = (bottom - _TOP) / top_level
    share = (right - left) / places
    return Plot(
        width=width,
        height=HEIGHT,
        left=left,
        right=right,
        top=_TOP,
        bottom=bottom,
        bars=tuple(
            Bar(
                x=round(left + place * share + share * _GAP / 2, 2),
                width=round(share * (1 - _GAP), 2),
                place_x=round(left + place * share, 2),
                place_width=round(share, 2),
                since=(first + place) * step_s,
                until=(first + place + 1) * step_s,
                count=sum(each.values()),
                parts=tuple(_parts(each, bottom, scale)),
            )
            for place, each in enumerate(counts)
        ),
        levels=tuple(
            Tick(round(bottom - level * scale, 2), short_number(level)) for level in levels
        ),
        times=tuple(_times(first * step_s, step_s, places, left, share)),
    )


def _parts(counts: dict[str, int], bottom: float, scale: float) -> list[Part]:
    parts, base = [], 0
    for kind, count in counts.items():
        if count:
            base += count
            parts.append(
                Part(kind, count, round(bottom - base * scale, 2), round(count * scale, 2))
            )
    return parts


def _levels(highest: int) -> tuple[int, list[int]]:
    """The top of the axis and its lines: up to five, steps of 1, 2 or 5 times a power of ten."""
    power = 10 ** max(0, math.floor(math.log10(max(1, highest / 4))))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= highest / 4)
    top = max(1, math.ceil(highest / step)) * step
    return top, list(range(0, top + 1, step))


def _times(begin: float, step_s: int, places: int, left: float, share: float) -> list[Tick]:
    """Labels at round moments, as many as fit; those of whole days say the day."""
    room = max(2, int(places * share / _LABEL))
    every = next(
        (each for each in _STEPS_S if each >= step_s and places * step_s / each <= room),
        _STEPS_S[-1],
    )
    ticks = []
    for place in range(places):
        at = begin + place * step_s
        if at % every == 0:
            moment = datetime.fromtimestamp(at, UTC)
            text = f"{moment:%d %b}" if at % _DAY_S == 0 else f"{moment:%H:%M}"
            ticks.append(Tick(round(left + (place + 0.5) * share, 2), text))
    return ticks

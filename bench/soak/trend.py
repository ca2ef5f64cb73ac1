"""A line through a series, and how sure its slope is.

Memory moves in steps and returns, so neighbouring samples are much alike and say less than their
number. The series is therefore cut into blocks (a reload's period or more), and the line is fitted
to the blocks' means; Student's t with the blocks' degrees of freedom gives the interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

HOUR_S: Final = 3600.0
_TAIL: Final = 0.975
_LEAST_BLOCKS: Final = 4


@dataclass(frozen=True, slots=True)
class Trend:
    """Growth an hour, with the ends of its 95 % interval; not a number with too few blocks."""

    slope: float
    low: float
    high: float
    blocks: int


def trend(series: Sequence[tuple[float, float]], block_s: float) -> Trend:
    """Fit a line to (seconds, value), by blocks of so many seconds; the last one may be short."""
    points = block_means(series, block_s)
    if len(points) < _LEAST_BLOCKS:
        return Trend(math.nan, math.nan, math.nan, len(points))
    middle_t = fmean(t for t, _ in points)
    middle_v = fmean(v for _, v in points)
    spread = sum((t - middle_t) ** 2 for t, _ in points)
    slope = sum((t - middle_t) * (v - middle_v) for t, v in points) / spread
    rest = sum((v - middle_v - slope * (t - middle_t)) ** 2 for t, v in points)
    freedom = len(points) - 2
    half = student_t(freedom) * math.sqrt(rest / freedom / spread)
    hourly = (slope * HOUR_S, (slope - half) * HOUR_S, (slope + half) * HOUR_S)
    return Trend(*hourly, len(points))


def block_means(series: Sequence[tuple[float, float]], block_s: float) -> list[tuple[float, float]]:
    """Mean time and mean value of each block, counted from the first sample."""
    blocks: dict[int, list[tuple[float, float]]] = {}
    for at, value in series:
        blocks.setdefault(int((at - series[0][0]) // block_s), []).append((at, value))
    return [(fmean(t for t, _ in each), fmean(v for _, v in each)) for each in blocks.values()]


def student_t(freedom: int) -> float:
    """The 97.5 % point of Student's t, to 1 % from 2 degrees of freedom on.

    Cornish-Fisher expansion about the normal quantile: Abramowitz and Stegun, 26.7.5.
    """
    z: float = NormalDist().inv_cdf(_TAIL)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    more: float = sum(term / freedom ** (power + 1) for power, term in enumerate(terms))
    return z + more

"""Paired ratios and differences: the median and its 95 % interval from order statistics."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONFIDENCE: Final = 0.95
ENOUGH_PAIRS: Final = 6
"""Of fewer, not even the range of all covers the true median so surely: no goal is judged by it."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median of pairs, and the interval that covers the true median at 95 %.

    Of fewer than six pairs it is the range of all, which covers less: 94 % of five, 75 % of three.
    """

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f}, n={self.pairs})"


@dataclass(frozen=True, slots=True)
class Difference:
    """As :class:`Ratio`, in the unit of what was measured."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:+,.0f} ({self.low:+,.0f} to {self.high:+,.0f}, n={self.pairs})"


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ratio of values measured in turn; each pair is one repeat of the same run."""
    return Ratio(*_interval([a / b for a, b in zip(ours, theirs, strict=True)]))


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """How much more ours is, measured in turn."""
    return Difference(*_interval([a - b for a, b in zip(ours, theirs, strict=True)]))


def _interval(values: Sequence[float]) -> tuple[float, float, float, int]:
    """Median, both ends of its interval, and how many values there are."""
    found = sorted(values)
    drop = _dropped(len(found))
    return median(found), found[drop], found[len(found) - 1 - drop], len(found)


def _dropped(count: int) -> int:
    """How many values may be left out at each end and the interval still covers 95 %."""
    drop, tail = 0, 0.5**count
    while drop + 1 < (count + 1) // 2:
        tail += comb(count, drop + 1) * 0.5**count
        if 1 - 2 * tail < _CONFIDENCE:
            break
        drop += 1
    return drop

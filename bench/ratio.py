"""Paired ratios: the median and its 95 % interval from order statistics."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median of pairs, and the interval that covers the true median at 95 % (or all pairs)."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f}, n={self.pairs})"


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ratio of values measured in turn; each pair is one repeat of the same run."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    drop = _dropped(len(ratios))
    return Ratio(median(ratios), ratios[drop], ratios[len(ratios) - 1 - drop], len(ratios))


def _dropped(count: int) -> int:
    """How many values may be left out at each end and the interval still covers 95 %."""
    drop, tail = 0, 0.5**count
    while drop + 1 < (count + 1) // 2:
        tail += comb(count, drop + 1) * 0.5**count
        if 1 - 2 * tail < _CONFIDENCE:
            break
        drop += 1
    return drop

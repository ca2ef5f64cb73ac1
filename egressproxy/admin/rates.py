"""How often something may happen: a token bucket an address, and one for all of them together.

Bounded: of addresses beyond ``MAX_ADDRESSES`` those that asked longest ago are forgotten, which
gives them a full bucket again; the bucket of all holds them then.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_ADDRESSES: Final = 4096


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` at once, then ``per_s`` a second."""

    burst: float
    per_s: float


LOGIN_OF_ONE: Final = Rate(burst=5, per_s=0.1)
LOGIN_OF_ALL: Final = Rate(burst=30, per_s=1)
PAGES_OF_ONE: Final = Rate(burst=60, per_s=10)
PAGES_OF_ALL: Final = Rate(burst=240, per_s=40)


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float

    def fill(self, rate: Rate, now: float) -> None:
        self.left = min(rate.burst, self.left + (now - self.at) * rate.per_s)
        self.at = now


class Rates:
    """Two limits over each other, for one kind of thing.

    Args:
        one: the limit of one address.
        all_: the limit of all addresses together.
        clock: seconds that never go back.
    """

    def __init__(
        self, one: Rate, all_: Rate, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._one, self._all = one, all_
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._common = _Bucket(all_.burst, clock())

    def wait_s(self, address: str) -> float:
        """Seconds until ``address`` may, 0.0 where it may now; spends nothing."""
        now = self._clock()
        self._common.fill(self._all, now)
        waits = [(1 - self._common.left) / self._all.per_s]
        if bucket := self._buckets.get(address):
            bucket.fill(self._one, now)
            waits.append((1 - bucket.left) / self._one.per_s)
        return max(0.0, *waits)

    def spend(self, address: str) -> None:
        """Count one time, whether it was allowed or not."""
        now = self._clock()
        bucket = self._buckets.setdefault(address, _Bucket(self._one.burst, now))
        self._buckets.move_to_end(address)
        while len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        for each, rate in ((bucket, self._one), (self._common, self._all)):
            each.fill(rate, now)
            each.left = max(0.0, each.left - 1)

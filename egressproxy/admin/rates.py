"""How often something may happen: a token bucket an address, and one for all of them together.

Bounded: of addresses beyond ``MAX_ADDRESSES`` those that asked longest ago are forgotten, which
gives them a full bucket again; the bucket of all holds them then.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address
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
    """Two limits over each other, for one kind of thing; the addresses of an IPv6 /64 are one.

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
        if bucket := self._buckets.get(_client(address)):
            bucket.fill(self._one, now)
            waits.append((1 - bucket.left) / self._one.per_s)
        return max(0.0, *waits)

    def spend(self, address: str) -> None:
        """Count one time, whether it was allowed or not.

        Who is beyond its own limit uses up nothing of the others'.
        """
        now = self._clock()
        client = _client(address)
        bucket = self._buckets.setdefault(client, _Bucket(self._one.burst, now))
        self._buckets.move_to_end(client)
        while len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        bucket.fill(self._one, now)
        if bucket.left >= 1:
            self._common.fill(self._all, now)
            self._common.left = max(0.0, self._common.left - 1)
        bucket.left = max(0.0, bucket.left - 1)


def _client(address: str) -> str:
    """Whom an address stands for: of an IPv6 network's addresses a host takes as many as it likes.

    What is no address is itself.
    """
    if ":" not in address:
        return address
    try:
        found = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found.ipv4_mapped or IPv6Address(found.packed[:8] + bytes(8)))

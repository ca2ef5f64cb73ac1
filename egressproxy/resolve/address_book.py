"""``AddressBook``: which names an address was given for, and which addresses a name was given.

Answers go in (``learn``, from our own resolving and later from a DNS proxy); names, addresses and
what changed for the kernel's sets come out. A pair of name and address lives for the answer's TTL
and a grace after it, because a client goes on with the address it was given, and longer while a
flow uses the address (``keep``). It is bounded in all, for each name and for each address: who asks
for names chooses what is in here.

It knows no policy, guard or set; it is of one thread and survives a reload.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from egressproxy.names import DnsName

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

MAX_NAMES_OF_ADDRESS: Final = 64
"""Names kept for one address: a content network has thousands on each of its own."""
MAX_ADDRESSES_OF_NAME: Final = 512
"""Addresses kept for one name: a pool that answers with others each time fills up in the grace."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An address that was given for a name; ``expires_at`` is on the book's clock (seconds)."""

    name: DnsName
    address: str
    expires_at: float


class AddressBook:
    """Names and addresses of a while.

    Args:
        grace_s: how long an entry outlives its TTL, and the last flow that used it.
        entries: pairs of name and address kept; the one learnt longest ago gives way.
        clock: monotonic seconds.
    """

    def __init__(
        self, *, grace_s: float, entries: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._grace_s = grace_s
        self._limit = entries
        self._clock = clock
        # Pairs by when they were last learnt; the other two are indexes, last learnt last.
        self._expiries: OrderedDict[tuple[DnsName, str], float] = OrderedDict()
        self._addresses: dict[DnsName, dict[str, None]] = {}
        self._names: dict[str, dict[DnsName, None]] = {}
        self._changed: dict[tuple[DnsName, str], None] = {}

    def __len__(self) -> int:
        """Pairs of name and address."""
        return len(self._expiries)

    @property
    def grace_s(self) -> float:
        """How long an entry outlives its TTL."""
        return self._grace_s

    @property
    def names(self) -> int:
        """How many names have an address."""
        return len(self._addresses)

    def learn(self, name: DnsName, addresses: Iterable[str], ttl_s: float) -> None:
        """An answer: ``addresses`` are canonical texts, the TTL is the smallest of its records."""
        expires_at = self._clock() + max(0.0, ttl_s) + self._grace_s
        for address in addresses:
            self._put(name, address, expires_at)

    def resume(self, name: DnsName, address: str, left_s: float) -> None:
        """Of an answer to who was here before us: so much is left of its TTL and grace together."""
        self._put(name, address, self._clock() + left_s)

    def keep(self, addresses: Iterable[str]) -> None:
        """These addresses have an open flow now: their entries live a grace from now at least."""
        now = self._clock()
        until = now + self._grace_s
        for address in addresses:
            for name in self._names.get(address, ()):
                if now < self._expiries[name, address] < until:
                    self._expiries[name, address] = until
                    self._changed[name, address] = None

    def names_of(self, address: str) -> tuple[DnsName, ...]:
        """The names the address was given for, the last one first."""
        now = self._clock()
        names = self._names.get(address, ())
        return tuple([n for n in reversed(names) if self._expiries[n, address] > now])

    def addresses_of(self, name: DnsName) -> tuple[str, ...]:
        """The addresses the name was given, the last one first."""
        now = self._clock()
        addresses = self._addresses.get(name, ())
        return tuple([a for a in reversed(addresses) if self._expiries[name, a] > now])

    def entries_of(self, name: DnsName) -> tuple[Entry, ...]:
        """The same with their ends, for a set that is filled anew."""
        return tuple(Entry(name, a, self._expiries[name, a]) for a in self.addresses_of(name))

    def changes(self) -> tuple[Entry, ...]:
        """What was learnt or prolonged since the last call and is still here.

        What expired is not among it: a set's elements have timeouts of their own.
        """
        now = self._clock()
        found = [Entry(*pair, self._expiries[pair]) for pair in self._changed]
        self._changed.clear()
        return tuple(entry for entry in found if entry.expires_at > now)

    def expire(self) -> int:
        """Forget what is over; how many pairs that were. Takes time by the size of the book."""
        now = self._clock()
        over = [pair for pair, expires_at in self._expiries.items() if expires_at <= now]
        for pair in over:
            self._forget(pair)
        return len(over)

    def _put(self, name: DnsName, address: str, expires_at: float) -> None:
        pair = (name, address)
        known = self._expiries.pop(pair, 0.0)  # and to the end with it
        self._expiries[pair] = max(known, expires_at)
        self._changed[pair] = None
        addresses = self._addresses.setdefault(name, {})
        addresses.pop(address, None)
        addresses[address] = None
        names = self._names.setdefault(address, {})
        names.pop(name, None)
        names[name] = None
        if len(addresses) > MAX_ADDRESSES_OF_NAME:
            self._forget((name, next(iter(addresses))))
        if len(names) > MAX_NAMES_OF_ADDRESS:
            self._forget((next(iter(names)), address))
        if len(self._expiries) > self._limit:
            self._forget(next(iter(self._expiries)))

    def _forget(self, pair: tuple[DnsName, str]) -> None:
        name, address = pair
        del self._expiries[pair]
        self._changed.pop(pair, None)
        _drop(self._addresses, name, address)
        _drop(self._names, address, name)


def _drop(index: dict[_Key, dict[_Value, None]], key: _Key, value: _Value) -> None:
    values = index[key]
    del values[value]
    if not values:
        del index[key]

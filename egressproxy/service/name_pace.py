"""``Pace``: asks for each wanted name again when its answer ends, a few at a time.

Answers go into the address book. A name that fails is asked for again later and later, keeps what
the book has of it for the grace, and is logged once, as is its return.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from egressproxy.resolve.cache import Failure
from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from egressproxy.names import DnsName
    from egressproxy.resolve.address_book import AddressBook
    from egressproxy.resolve.cache import Answer
    from egressproxy.resolve.resolver import Resolver

AT_ONCE: Final = 32
"""Names asked for at the same time."""
MIN_PACE_S: Final = 1.0
MAX_PACE_S: Final = 300.0
FIRST_RETRY_S: Final = 5.0
LAST_RETRY_S: Final = 60.0
_JITTER: Final = 0.1
"""Part of the wait by which it may be longer, so that names do not all come due together."""
_STAYS_OPEN: Final = "its last addresses stay open for address_grace_s"
_STAYS_SHUT: Final = "nothing is open for it until it does"


class PaceCounters(Protocol):
    """Where it counts; ``observe.counters.Counters.supervisor()`` is one."""

    def unresolved_names(self, names: int) -> None:
        """How many wanted names have no answer now."""
        ...


class Pace:
    """When to ask for what.

    Args:
        resolver: the answers' ``expires_at`` is on the running loop's clock.
        book: learns what was answered.
        counters: a row of this process.
        on_answer: called after each answer or failure of a wanted name.
        jitter: a number from 0 to 1 for each wait.
    """

    def __init__(
        self,
        resolver: Resolver,
        book: AddressBook,
        counters: PaceCounters,
        on_answer: Callable[[DnsName], None],
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._resolver = resolver
        self._book = book
        self._counters = counters
        self._on_answer = on_answer
        self._jitter = jitter
        self._due: list[tuple[float, DnsName]] = []  # a heap; what ``_dues`` does not know is stale
        self._dues: dict[DnsName, float] = {}
        self._asking: set[DnsName] = set()
        self._fresh: set[DnsName] = set()  # wanted and never answered
        self._failures: dict[DnsName, int] = {}
        self._bell = asyncio.Event()

    @property
    def unresolved(self) -> tuple[DnsName, ...]:
        """The wanted names whose last question brought no address."""
        return tuple(self._failures)

    @property
    def is_settled(self) -> bool:
        """Whether every wanted name was answered at least once, addresses or not."""
        return not self._fresh

    def want(self, names: Iterable[DnsName]) -> None:
        """Ask for these, the new ones now, and for no others."""
        now = asyncio.get_running_loop().time()
        wanted = dict.fromkeys(names)
        new = [name for name in wanted if name not in self._dues]
        self._dues = {n: due for n, due in self._dues.items() if n in wanted}
        self._dues |= dict.fromkeys(new, now)
        self._due = [(due, name) for name, due in self._dues.items()]
        heapq.heapify(self._due)
        self._fresh = (self._fresh & wanted.keys()) | set(new)
        self._failures = {n: tries for n, tries in self._failures.items() if n in wanted}
        self._counters.unresolved_names(len(self._failures))
        self._bell.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            self._bell.clear()
            wait_s = self._ask_what_is_due()
            try:
                async with asyncio.timeout(wait_s):
                    await self._bell.wait()
            except TimeoutError:
                continue

    def _ask_what_is_due(self) -> float | None:
        """Ask, and say when the next is due; ``None`` where an answer has to come first."""
        now = asyncio.get_running_loop().time()
        while self._due and len(self._asking) < AT_ONCE:
            due, name = self._due[0]
            if self._dues.get(name) != due or name in self._asking:
                heapq.heappop(self._due)
            elif due > now:
                return due - now
            else:
                heapq.heappop(self._due)
                self._asking.add(name)
                self._resolver.resolve(name, partial(self._answered, name), whole=True)
        return None

    def _answered(self, name: DnsName, answer: Answer) -> None:
        self._asking.discard(name)
        self._bell.set()
        if name not in self._dues or answer.error is Failure.CLOSED:
            return
        now = asyncio.get_running_loop().time()
        if answer.addresses:
            ttl_s = min(max(answer.expires_at - now, MIN_PACE_S), MAX_PACE_S)
            self._book.learn(name, answer.addresses, ttl_s)
            self._returned(name)
            wait_s = ttl_s
        else:
            wait_s = self._failed(name, answer.error)
        due = self._dues[name] = now + wait_s * (1 + _JITTER * self._jitter())
        heapq.heappush(self._due, (due, name))
        self._fresh.discard(name)
        self._counters.unresolved_names(len(self._failures))
        self._on_answer(name)

    def _returned(self, name: DnsName) -> None:
        if self._failures.pop(name, 0):
            journal().info("a name of a network rule resolves again", name=name)

    def _failed(self, name: DnsName, error: Failure) -> float:
        """Note it; how long to wait before the next question."""
        tries = self._failures.get(name, 0)
        self._failures[name] = tries + 1
        if not tries:
            is_open = bool(self._book.addresses_of(name))
            journal().warning(
                "a name of a network rule does not resolve",
                name=name,
                why=error.value,
                hint=_STAYS_OPEN if is_open else f"{_STAYS_SHUT}; from here: dig {name}",
            )
        return min(FIRST_RETRY_S * (1 << min(tries, 8)), LAST_RETRY_S)

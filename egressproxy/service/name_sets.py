"""``NameSets``: keeps the kernel's sets of the policy's names filled, at the pace of their TTLs.

Every exact name of a tcp or udp rule is resolved by our own resolver, goes into the address book,
and from there, past the address guard, into the name's sets with a timeout of TTL and grace. A
name that does not resolve keeps its last addresses until then, is logged once and counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from egressproxy.names import DnsName
from egressproxy.policy.program import end_of_day
from egressproxy.policy.verdict import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from types import TracebackType

    from egressproxy.policy.networks import Network
    from egressproxy.policy.rules import Policy, Rule
    from egressproxy.resolve.address_book import AddressBook
    from egressproxy.resolve.guard import Guard
    from egressproxy.resolve.resolver import Resolver


class Elements(Protocol):
    """Changes the elements of a set of the table; blocks, and is called in a thread."""

    def add_elements(self, name: str, elements: Iterable[tuple[str, int]]) -> None:
        """Put addresses in for so many seconds; one that is there gets the new timeout.

        Raises:
            KernelError: the set is not there, or nft refused.
        """
        ...

    def remove_elements(self, name: str, addresses: Iterable[str]) -> None:
        """Take addresses out; one that is not there is no error.

        Raises:
            KernelError: the set is not there, or nft refused.
        """
        ...


class NameCounters(Protocol):
    """Where it counts; ``observe.counters.Counters.supervisor()`` is one."""

    def unresolved_names(self, names: int) -> None:
        """How many wanted names have no answer now."""
        ...

    def address_book(self, names: int, pairs: int) -> None:
        """The size of the book now."""
        ...

    def refused_addresses(self, addresses: int) -> None:
        """Answers that the guard kept out of a set."""
        ...

    def set_error(self) -> None:
        """A change of a set that failed and is tried again."""
        ...


@dataclass(frozen=True, slots=True)
class WantedName:
    """A name that rules allow by address, and what each of them lists in ``addresses:``.

    An address that is not public enters only where every one of these rules lists it: the set is
    one for all of them.
    """

    name: DnsName
    allowances: frozenset[tuple[Network, ...]] = frozenset({()})


def wanted_names(policy: Policy, now: float) -> tuple[WantedName, ...]:
    """The names of all tcp and udp allows in force, in policy order; ``now`` is POSIX seconds."""
    found: dict[DnsName, set[tuple[Network, ...]]] = {}
    for rule in policy.rules:
        if rule.action is not Action.ALLOW or end_of_day(rule.until) <= now:
            continue
        if any(not span.protocol.is_application for span in rule.ports):
            for name in _names(rule):
                found.setdefault(name, set()).add(rule.addresses)
    return tuple(WantedName(name, frozenset(lists)) for name, lists in found.items())


def _names(rule: Rule) -> Iterator[DnsName]:
    for pattern in rule.patterns:
        if pattern.is_exact:
            yield pattern.suffix
    for entries in rule.lists:
        yield from map(DnsName, entries.entries)


class NameSets:
    """An async context manager: resolves and fills as long as it is entered.

    Args:
        resolver: our own; its answers say the TTL.
        book: where answers go first, and what is left of them between two policies.
        guard: the address guard of the moment.
        elements: changes the kernel's sets.
        sets_of: the names of a name's sets for IPv4 and IPv6 (as the table has them).
        counters: a row of this process.
        clock: monotonic seconds, the book's clock.
    """

    def __init__(
        self,
        *,
        resolver: Resolver,
        book: AddressBook,
        guard: Callable[[], Guard],
        elements: Elements,
        sets_of: Callable[[DnsName], tuple[str, str]],
        counters: NameCounters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolver = resolver
        self._book = book
        self._guard = guard
        self._elements = elements
        self._sets_of = sets_of
        self._counters = counters
        self._clock = clock

    @property
    def unresolved(self) -> tuple[DnsName, ...]:
        """The wanted names without an answer now."""
        return ()

    def want(self, names: Collection[WantedName]) -> None:
        """Resolve these from now on, and no others; call it when the table has their sets."""

    def refill(self) -> None:
        """Put all that is known into the sets again, soon: the table is a new one."""

    async def settled(self, timeout_s: float) -> bool:
        """Wait until every wanted name was answered once and its sets are filled; false if late."""
        return timeout_s < 0

    async def __aenter__(self) -> Self:
        """Begin; nothing is wanted yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; the sets are left to their timeouts."""

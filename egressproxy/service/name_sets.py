"""``NameSets``: keeps the kernel's sets of the policy's names filled, at the pace of their TTLs.

Every exact name of a tcp or udp rule is resolved by our own resolver (``Pace``); the answers go
into the address book, and from there, past the address guard, into the name's sets, with a timeout
of TTL and grace. Who else feeds the book (a DNS proxy) fills the sets too: it calls ``flush``
before it answers its client.

A name that does not resolve keeps its last addresses for the grace, is logged once and counted.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, Self

from egressproxy.errors import KernelError
from egressproxy.service.name_pace import Pace, PaceCounters
from egressproxy.service.set_plans import Plan, PlanCounters, SetPlans, WantedName

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from types import TracebackType

    from egressproxy.kernel.kernel_policy import KernelPolicy
    from egressproxy.kernel.nft_apply import SetChange
    from egressproxy.names import DnsName
    from egressproxy.policy.networks import Network
    from egressproxy.resolve.address_book import AddressBook
    from egressproxy.resolve.guard import Guard
    from egressproxy.resolve.resolver import Resolver

HOUSEKEEPING_S: Final = 5.0
"""How soon what ``keep`` prolonged, a new guard or a failed change of a set is seen to."""
_LOOK: Final = 0.1
"""Part of the grace after which every name's elements are looked at, answers or not."""
MAX_TRIES: Final = 64
"""Calls of nft in one turn: enough to find a few bad sets among thousands."""
_NOT_THE_SETS: Final = frozenset({"missing_program", "permission", "module", "timeout"})
"""Errors that each set would meet again."""


class Elements(Protocol):
    """Changes elements of the table's sets; ``kernel.nft_apply.Nft`` is one."""

    def change_elements(self, changes: Iterable[SetChange]) -> None:
        """All changes or none; blocks, and is called in a thread.

        Raises:
            KernelError: a set is not there, or nft refused.
        """
        ...


class NameCounters(PaceCounters, PlanCounters, Protocol):
    """Where it counts; ``observe.counters.Counters.supervisor()`` is one."""

    def address_book(self, names: int, pairs: int) -> None:
        """The size of the book now."""
        ...


def wanted_names(policy: KernelPolicy) -> tuple[WantedName, ...]:
    """The names that have sets in the table of a policy; in its order."""
    found: dict[DnsName, set[tuple[Network, ...]]] = {}
    for rule in policy.rules:
        for name in rule.names:
            found.setdefault(name, set()).add(rule.addresses)
    return tuple(WantedName(name, frozenset(lists)) for name, lists in found.items())


class NameSets:
    """An async context manager: resolves and fills as long as it is entered.

    Args:
        resolver: our own; its answers say the TTL. Not closed here.
        book: where answers go first, and what is left of them between two policies.
        guard: the address guard of the moment; another object where it judges otherwise.
        elements: changes the kernel's sets.
        sets_of: the names of a name's sets for IPv4 and IPv6; ``kernel.nft_names.name_sets``.
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
        self._book = book
        self._guard = guard
        self._elements = elements
        self._counters = counters
        self._clock = clock
        self._pace = Pace(resolver, book, counters, self._answered)
        self._plans = SetPlans(book, sets_of, counters, clock)
        self._wanted: dict[DnsName, WantedName] = {}
        self._dirty: dict[DnsName, None] = {}  # to be compared with the book as a whole
        self._judged_by: Guard | None = None
        self._house_at = self._look_at = clock() + HOUSEKEEPING_S
        self._bell = asyncio.Event()
        self._filled = asyncio.Condition()
        self._one_at_a_time = asyncio.Lock()
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []

    @property
    def unresolved(self) -> tuple[DnsName, ...]:
        """The wanted names whose last question brought no address."""
        return self._pace.unresolved

    def want(self, names: Collection[WantedName]) -> None:
        """Resolve these from now on, and no others; call it when the table has their sets.

        What the book still knows goes into the sets at once; ``flush`` waits for that.
        """
        wanted = {each.name: each for each in names}
        self._dirty |= {n: None for n, each in wanted.items() if self._wanted.get(n) != each}
        self._dirty = {name: None for name in self._dirty if name in wanted}
        self._wanted = wanted
        self._plans.keep_only(wanted)
        self._pace.want(wanted)
        self._bell.set()

    async def tighten(self, names: Collection[WantedName]) -> None:
        """``want`` and ``flush``, where those of them that were wanted before may allow less now.

        Raises:
            KernelError: a set may still have what its name is no longer allowed. All are wanted all
                the same: want the others again, or it is tried further.
        """
        less = [each for each in names if self._wanted.get(each.name, each) != each]
        self.want(names)
        await self.flush()
        if why := self._plans.left_open(less, self._guard()):
            what = f"addresses of a name cannot be closed: {why.message}"
            raise KernelError(what, hint=why.hint, code=why.code) from why

    def refill(self) -> None:
        """Put all that is known into the sets again, soon: somebody made the table anew."""
        self._plans.forget_table()
        self._dirty = dict.fromkeys(self._wanted)
        self._bell.set()

    async def flush(self) -> None:
        """Bring the sets up to what the book knows now; returns when the kernel has it.

        Changes that fail are counted, logged and tried again later.
        """
        async with self._one_at_a_time:
            names = self._dirty | {entry.name: None for entry in self._book.changes()}
            self._dirty = {}
            wanteds = [self._wanted[name] for name in names if name in self._wanted]
            plans, table = self._plans.of(wanteds, self._guard()), self._plans.table
            if plans:
                try:
                    failed = await asyncio.to_thread(self._carry_out, plans)
                except asyncio.CancelledError:  # who waited gave up; it is not known what was done
                    self._dirty |= {wanted.name: None for wanted in wanteds}
                    raise
                self._plans.done(plans, table, failed)
            self._counters.address_book(self._book.names, len(self._book))
        async with self._filled:
            self._filled.notify_all()

    async def settled(self, timeout_s: float) -> bool:
        """Wait until every wanted name was answered and its sets are filled; false if too late."""
        try:
            async with asyncio.timeout(timeout_s), self._filled:
                await self._filled.wait_for(self._is_settled)
        except TimeoutError:
            return False
        return True

    async def __aenter__(self) -> Self:
        """Begin; nothing is wanted yet."""
        await self._tasks.__aenter__()
        self._running = [
            self._tasks.create_task(self._pace.run(), name="names of network rules"),
            self._tasks.create_task(self._fill(), name="sets of names"),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; the sets are left to their timeouts."""
        for task in self._running:
            task.cancel()
        if isinstance(error, asyncio.CancelledError):
            await self._tasks.__aexit__(kind, error, traceback)
        else:  # what went wrong beside us is not the group's
            await self._tasks.__aexit__(None, None, None)

    def _is_settled(self) -> bool:
        is_filled = not self._dirty and not self._one_at_a_time.locked()
        return is_filled and self._pace.is_settled

    def _answered(self, name: DnsName) -> None:
        self._dirty[name] = None
        self._bell.set()

    async def _fill(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(HOUSEKEEPING_S):
                    await self._bell.wait()
            self._bell.clear()
            if self._clock() >= self._house_at:
                self._keep_house()
            await self.flush()

    def _keep_house(self) -> None:
        self._house_at = self._clock() + HOUSEKEEPING_S
        self._book.expire()
        guard = self._guard()
        is_time = self._house_at >= self._look_at
        if is_time or guard is not self._judged_by or self._plans.has_failures:
            self._judged_by = guard
            self._look_at = self._house_at + self._book.grace_s * _LOOK
            self._dirty = dict.fromkeys(self._wanted)

    def _carry_out(self, plans: list[Plan]) -> dict[str, KernelError]:
        """In a thread: all at once, or else by halves, so that one takes few others with it.

        What failed, by set. Where the table has gone all would fail, one nft for each: so the tries
        are bounded, and what is left is tried again later.
        """
        failed: dict[str, KernelError] = {}
        parts, tries = [plans], 0
        while parts:
            part, tries = parts.pop(), tries + 1
            try:
                self._elements.change_elements([plan.change(self._clock()) for plan in part])
            except KernelError as error:
                half = len(part) // 2
                if half and error.code not in _NOT_THE_SETS and tries < MAX_TRIES:
                    parts += [part[half:], part[:half]]
                    continue
                rest = [part, *parts] if tries >= MAX_TRIES else [part]
                failed |= {plan.set_name: error for each in rest for plan in each}
                if tries >= MAX_TRIES:
                    break
        return failed

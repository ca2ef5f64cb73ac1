"""``NameSets``: keeps the kernel's sets of the policy's names filled, at the pace of their TTLs.

Every exact name of a tcp or udp rule is resolved by our own resolver (``NamePace``); the answers go
into the address book, and from there, past the address guard, into the name's sets, with a timeout
of TTL and grace. Who else feeds the book (a DNS proxy) fills the sets too: it calls ``flush``
before it answers its client.

A name that does not resolve keeps its last addresses for the grace, is logged once and counted.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Final, Protocol, Self

from egressproxy.errors import KernelError
from egressproxy.kernel.nft_apply import SetChange
from egressproxy.policy.verdict import Action
from egressproxy.service.journal import journal
from egressproxy.service.name_pace import NamePace, PaceCounters

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from types import TracebackType

    from egressproxy.kernel.kernel_policy import KernelPolicy
    from egressproxy.names import DnsName
    from egressproxy.policy.networks import Network
    from egressproxy.policy.rules import Policy
    from egressproxy.resolve.address_book import AddressBook, Entry
    from egressproxy.resolve.guard import Guard
    from egressproxy.resolve.resolver import Resolver

HOUSEKEEPING_S: Final = 5.0
"""How soon what ``keep`` prolonged, a new guard or a failed change of a set is seen to."""
_NOT_THE_SETS: Final = frozenset({"missing_program", "permission", "module", "timeout"})
"""Errors that each set would meet again."""
_RENEWED: Final = 1 / 3
"""An element is given a new timeout once it has this part of the grace less than it should."""


class Elements(Protocol):
    """Changes elements of the table's sets; ``kernel.nft_apply.Nft`` is one."""

    def change_elements(self, changes: Iterable[SetChange]) -> None:
        """All changes or none; blocks, and is called in a thread.

        Raises:
            KernelError: a set is not there, or nft refused.
        """
        ...


class NameCounters(PaceCounters, Protocol):
    """Where it counts; ``observe.counters.Counters.supervisor()`` is one."""

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


def wanted_names(policy: Policy, kernel: KernelPolicy) -> tuple[WantedName, ...]:
    """The names that have sets in the table of ``kernel``, which is of ``policy``; in its order."""
    allowed = {rule.id: rule.addresses for rule in policy.rules if rule.action is Action.ALLOW}
    found: dict[DnsName, set[tuple[Network, ...]]] = {}
    for rule in kernel.rules:
        for name in rule.names:
            found.setdefault(name, set()).add(allowed.get(rule.id, ()))
    return tuple(WantedName(name, frozenset(lists)) for name, lists in found.items())


@dataclass(slots=True)
class _Plan:
    """What one set is to be given and to lose."""

    name: DnsName
    set_name: str
    add: dict[str, float]
    """Addresses and when they run out."""
    remove: list[str]

    def change(self, now: float) -> SetChange:
        timeouts = tuple((address, ceil(end - now)) for address, end in self.add.items())
        return SetChange(self.set_name, timeouts, tuple(self.remove))


class NameSets:
    """An async context manager: resolves and fills as long as it is entered.

    Args:
        resolver: our own; its answers say the TTL. Not closed here.
        book: where answers go first, and what is left of them between two policies.
        guard: the address guard of the moment.
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
        self._sets_of = sets_of
        self._counters = counters
        self._clock = clock
        self._pace = NamePace(resolver, book, counters, self._answered)
        self._wanted: dict[DnsName, WantedName] = {}
        self._in_kernel: dict[str, dict[str, float]] = {}  # when elements of a set run out
        self._refused: dict[DnsName, frozenset[str]] = {}
        self._dirty: dict[DnsName, None] = {}  # to be compared with the book as a whole
        self._broken: set[str] = set()
        self._table = 0  # counts the tables, so that what an older one was given is not believed
        self._house_at = clock() + HOUSEKEEPING_S
        self._judged_by: Guard | None = None
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
        self._refused = {n: refused for n, refused in self._refused.items() if n in wanted}
        keep = {set_name for name in wanted for set_name in self._sets_of(name)}
        self._in_kernel = {n: held for n, held in self._in_kernel.items() if n in keep}
        self._wanted = wanted
        self._pace.want(wanted)
        self._bell.set()

    def refill(self) -> None:
        """Put all that is known into the sets again, soon: somebody made the table anew."""
        self._table += 1
        self._in_kernel.clear()
        self._dirty = dict.fromkeys(self._wanted)
        self._bell.set()

    async def flush(self) -> None:
        """Bring the sets up to what the book knows now; returns when the kernel has it.

        Changes that fail are counted, logged and tried again later.
        """
        async with self._one_at_a_time:
            plans, table = self._plans(), self._table
            if plans:
                failed = await asyncio.to_thread(self._carry_out, plans)
                if table == self._table:
                    self._note(plans, failed)
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
        if guard is not self._judged_by or self._broken:
            self._judged_by = guard
            self._dirty = dict.fromkeys(self._wanted)

    # What is to be done

    def _plans(self) -> list[_Plan]:
        names = self._dirty | {entry.name: None for entry in self._book.changes()}
        self._dirty = {}
        guard = self._guard()
        plans = [
            plan
            for name in names
            if (wanted := self._wanted.get(name)) is not None
            for plan in self._plans_of(wanted, guard)
        ]
        return [plan for plan in plans if plan.add or plan.remove]

    def _plans_of(self, wanted: WantedName, guard: Guard) -> tuple[_Plan, ...]:
        name = wanted.name
        entries = self._book.entries_of(name)
        refused = frozenset(e.address for e in entries if _refuses(guard, wanted, e.address))
        self._note_refused(name, refused)
        v4, v6 = self._sets_of(name)
        permitted = [entry for entry in entries if entry.address not in refused]
        return (
            self._plan(name, v4, [e for e in permitted if ":" not in e.address], guard),
            self._plan(name, v6, [e for e in permitted if ":" in e.address], guard),
        )

    def _plan(self, name: DnsName, set_name: str, entries: list[Entry], guard: Guard) -> _Plan:
        now, wanted = self._clock(), self._wanted[name]
        held = self._in_kernel.setdefault(set_name, {})
        for address in [address for address, end in held.items() if end <= now]:
            del held[address]
        slack_s = self._book.grace_s * _RENEWED
        add = {
            entry.address: entry.expires_at
            for entry in entries
            if held.get(entry.address, 0.0) < entry.expires_at - slack_s
        }
        return _Plan(name, set_name, add, [a for a in held if _refuses(guard, wanted, a)])

    def _note_refused(self, name: DnsName, refused: frozenset[str]) -> None:
        new = refused - self._refused.get(name, frozenset())
        self._refused[name] = refused
        if new:
            self._counters.refused_addresses(len(new))
            journal().warning(
                "addresses are kept out of a network rule",
                name=name,
                addresses=sorted(new)[:8],
                hint="not public: list them in the rule's addresses if they are meant",
            )

    # Doing it, in a thread

    def _carry_out(self, plans: list[_Plan]) -> dict[str, KernelError]:
        """All at once, or else each set by itself: one that is not there takes no other with it."""
        try:
            self._elements.change_elements([plan.change(self._clock()) for plan in plans])
        except KernelError as error:
            if len(plans) == 1 or error.code in _NOT_THE_SETS:
                return {plan.set_name: error for plan in plans}
        else:
            return {}
        failed: dict[str, KernelError] = {}
        for plan in plans:
            failed |= self._carry_out([plan])
        return failed

    def _note(self, plans: list[_Plan], failed: dict[str, KernelError]) -> None:
        for plan in plans:
            error = failed.get(plan.set_name)
            if error is None:
                self._broken.discard(plan.set_name)
                held = self._in_kernel.setdefault(plan.set_name, {})
                held |= plan.add
                for address in plan.remove:
                    held.pop(address, None)
                continue
            self._counters.set_error()
            if plan.set_name not in self._broken:
                self._broken.add(plan.set_name)
                journal().warning("a set of names is not filled", name=plan.name, why=str(error))


def _refuses(guard: Guard, wanted: WantedName, address: str) -> bool:
    return any(guard.refuses(address, allowed) for allowed in wanted.allowances)

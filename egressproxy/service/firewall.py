"""``Firewall``: the kernel's part of the running service, put up, reloaded and kept.

It is put up in an order in which nothing is ever open that the policy denies: routing guard (which
forwards nothing), table, then the sysctls, forwarding last. Application flows wait in the queues of
their listeners until the workers serve.

A reload as it is seen from here (``service.reload`` has all of it):

1. ``close_first``: the table between two policies; a new connection passes only where both allow.
2. All workers commit.
3. ``open_last``: the new policy's table, the addresses of its names, and the end of forwarded
   connections that it does not allow.

When it ends everything stays as it is; ``kernel.takeover`` (``egressproxy down``) takes it back.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final, Self

from egressproxy.errors import KernelError, ServiceError
from egressproxy.kernel.addresses import own_addresses
from egressproxy.kernel.changes import Changes
from egressproxy.kernel.kernel_policy import MAX_NAMES, kernel_policy
from egressproxy.kernel.nflog import Nflog
from egressproxy.kernel.nft_names import name_sets
from egressproxy.observe.log import RecordLog
from egressproxy.resolve.address_book import AddressBook
from egressproxy.resolve.guard import Guard
from egressproxy.resolve.resolver import Resolver
from egressproxy.service.addresses_in_use import AddressesInUse, learn_from_sets
from egressproxy.service.forwarded import NOTHING_REVOKED, Judge, Revocation, revoke
from egressproxy.service.journal import journal
from egressproxy.service.kernel_denies import KernelDenies
from egressproxy.service.kernel_rules import KernelRules
from egressproxy.service.name_sets import NameSets, wanted_names
from egressproxy.service.serving import LOG_CLOSE_TIMEOUT_S
from egressproxy.service.set_plans import WantedName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from egressproxy.kernel.firewall_options import FirewallOptions
    from egressproxy.names import DnsName
    from egressproxy.observe.counting import WorkerCounters
    from egressproxy.observe.tee import Tee
    from egressproxy.service.firewall_configuration import FirewallOrder
    from egressproxy.service.generation import Generation
    from egressproxy.service.options import RunOptions

LOOK_S: Final = 5.0
"""Changes of the table and of routing rules are told at once; what is not is found so soon."""
RETRY_S: Final = 1.0
PAUSE_S: Final = 0.1
"""Between two looks: who changes something usually changes more."""


class Firewall:
    """An async context manager: up from its entry on, and left in place at its end.

    Args:
        order: what to put up, with the ports that are really listened on.
        run: where records go, settings, DNS.
        counters: the supervisor's row.
        current: the generation in force.
        tee: makes what takes its records for the review as well, if anything does.

    Raises:
        KernelError: (on entry) what the kernel lacks or refuses, and what to do.
    """

    def __init__(
        self,
        order: FirewallOrder,
        run: RunOptions,
        counters: WorkerCounters,
        current: Callable[[], Generation],
        *,
        tee: Callable[[], Tee] | None = None,
    ) -> None:
        self.problems: tuple[str, ...] = ("it is not up yet",)
        """What is not as it has to be; it is being put back."""
        self._order = order
        self._run = run
        self._counters = counters
        self._current = current
        self._tee = tee
        self._lock = asyncio.Lock()  # one at a time changes the kernel's rules
        self._bell = asyncio.Event()
        self._stack = AsyncExitStack()
        self._guard = Guard()
        self._own: frozenset[str] = frozenset()
        self._book = AddressBook(
            grace_s=run.settings.address_grace_s, entries=run.settings.address_book_entries
        )
        self._is_unsettled = False
        self._in_use = AddressesInUse(self._book)

    @property
    def is_up(self) -> bool:
        """Whether the kernel enforces the policy in force, and nothing else."""
        return not self.problems

    @property
    def digest(self) -> str:
        """The policy that the kernel enforces, or will as soon as it takes its table."""
        return self._rules.policy.digest

    def judged(self) -> dict[str, int]:
        """Judged packets by what became of them, some seconds old: an ``Outcome``, or the rule's.

        Empty until the table was seen.
        """
        return self._rules.judged()

    def rule_packets(self) -> dict[str, int]:
        """Packets by the id of each network rule, some seconds old."""
        return self._rules.rule_packets()

    @property
    def book(self) -> AddressBook:
        """The names of the addresses that network rules open by name."""
        return self._book

    @property
    def options(self) -> FirewallOptions:
        """What was asked for."""
        return self._order.options

    async def __aenter__(self) -> Self:
        """Put it up."""
        async with AsyncExitStack() as stack:
            policy = await asyncio.to_thread(kernel_policy, self._current().policy, time.time())
            self._rules = KernelRules(self._order.options, self._order.state, policy)
            self._coming = policy
            await self._open(stack)
            self._stack = stack.pop_all()
        self.problems = ()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop keeping it; the kernel's rules stay."""
        await self._stack.__aexit__(kind, error, traceback)
        journal().info(
            "the kernel's rules stay in place, application flows are refused",
            hint="egressproxy down takes them back",
        )

    async def close_first(self, new: Generation) -> None:
        """Before any worker commits: what the new policy does not allow is closed.

        Raises:
            KernelError: the kernel would not take the policy, or keeps addresses open that it
                denies; the old one is in force.
        """
        policy = await asyncio.to_thread(kernel_policy, new.policy, time.time())
        old = wanted_names(self._rules.policy)
        async with self._lock:
            await asyncio.to_thread(self._rules.close_first, policy)
            try:
                await self._names.tighten(both_wanted(old, wanted_names(policy)))
            except KernelError:
                await self._reopen()
                self._names.want(old)
                raise
        self._coming = policy

    async def open_last(self) -> Revocation:
        """After all workers have committed: the new policy is in force in the kernel, too.

        What fails is journalled and tried again by ``keep``; until then nothing is open that either
        policy denies.
        """
        async with self._lock:
            try:
                await asyncio.to_thread(self._rules.open_last, self._coming)
            except KernelError as error:
                self._is_unsettled = True
                self._fail("the kernel is between two policies", error)
                self._bell.set()
                return NOTHING_REVOKED
        return await self._settle()

    async def _reopen(self) -> None:
        """The old policy's table again, at once or by ``keep``."""
        try:
            await asyncio.to_thread(self._rules.open_last, self._rules.policy)
        except KernelError as error:
            self._fail("the kernel is between two policies", error)
            self._bell.set()

    def reopen_log(self) -> None:
        """Open the record file anew."""
        self._log.reopen()

    async def keep(self) -> None:
        """Put back what others change, for as long as it is not cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self.problems else LOOK_S):
                    await self._bell.wait()
            is_told = self._bell.is_set()
            self._bell.clear()
            await self._look(elements=is_told)
            if self._is_unsettled and not self.problems:
                await self._settle()
            await self._in_use.keep()
            await asyncio.sleep(PAUSE_S)

    async def _open(self, stack: AsyncExitStack) -> None:
        settings, loop = self._run.settings, asyncio.get_running_loop()
        tee = None if self._tee is None else self._tee()
        self._log = RecordLog(self._run.log.path, settings, self._counters, tee)
        stack.push_async_callback(asyncio.to_thread, self._log.close, LOG_CLOSE_TIMEOUT_S)
        # What may be missing or taken is had before the first change.
        nflog = await asyncio.to_thread(Nflog, self.options.nflog_group)
        stack.callback(nflog.close)
        changes = stack.enter_context(Changes())
        await asyncio.to_thread(self._rules.put_up)
        await self._look_for_addresses()
        self._denies = KernelDenies(
            nflog,
            ruleset=lambda: self._current().ruleset,
            guard=lambda: self._guard,
            book=self._book,
            sink=self._log,
            counters=self._counters,
            clients=self.options.clients,
        )
        await stack.enter_async_context(self._denies)
        resolver = Resolver(
            settings,
            servers=[str(server) for server in self._run.servers],
            overrides=self._run.overrides,
        )
        stack.push_async_callback(resolver.aclose)
        self._names = NameSets(
            resolver=resolver,
            book=self._book,
            guard=lambda: self._guard,
            elements=self._rules.nft,
            sets_of=name_sets,
            counters=self._counters,
        )
        await stack.enter_async_context(self._names)
        for descriptor in changes.descriptors():
            loop.add_reader(descriptor, self._read, changes)
            stack.callback(loop.remove_reader, descriptor)
        if wanted := wanted_names(self._rules.policy):
            elements = await asyncio.to_thread(self._rules.nft.timed_elements)
            learn_from_sets(self._book, wanted, elements)
        await self._settle()

    def _read(self, changes: Changes) -> None:
        if changes.read():
            self._bell.set()

    async def _look(self, *, elements: bool) -> None:
        async with self._lock:
            try:
                await self._look_for_addresses()
                found = await asyncio.to_thread(self._rules.problems, elements=elements)
                if found:
                    await self._put_back(found)
                self.problems = ()
            except KernelError as error:
                self._fail("the kernel's firewall is not as it has to be", error)

    async def _put_back(self, found: tuple[str, ...]) -> None:
        if not self.problems:
            journal().warning("the kernel's firewall was changed by somebody", what=list(found))
        self.problems = found
        is_new = await asyncio.to_thread(self._rules.put_back)
        self._names.refill()  # who changes one thing may have changed the sets of names, too
        self._counters.kernel_repair()
        journal().info("the kernel's firewall is put back", counters_begin_anew=is_new)

    def _fail(self, what: str, error: KernelError) -> None:
        if self.problems != (str(error),):
            journal().error(what, why=str(error), hint="it is tried again")
        self.problems = (str(error),)

    async def _settle(self) -> Revocation:
        """With the table in place: fill the sets of its names, end what it does not allow."""
        policy, generation = self._rules.policy, self._current()
        if policy.names_left_out:
            journal().warning(
                "names of network rules are not opened, they are too many",
                left_out=policy.names_left_out,
                limit=MAX_NAMES,
            )
        self._names.want(wanted_names(policy))
        await self._names.flush()
        judge = Judge(
            ruleset=generation.ruleset,
            is_audit=policy.is_audit,
            book=self._book,
            guard=self._guard,
            clients=self.options.clients,
            now=time.time(),
        )
        try:
            done = await revoke(judge, self._denies.revoked)
        except KernelError as error:
            journal().error("forwarded connections are not judged anew", why=str(error))
            self._is_unsettled = True
            return NOTHING_REVOKED
        self._is_unsettled = False
        self._counters.kernel_revoked(done.revoked)
        return done

    async def _look_for_addresses(self) -> None:
        try:
            own = await asyncio.to_thread(own_addresses)
        except ServiceError as error:
            journal().warning("own addresses are not to be had", why=str(error))
            return
        if own != self._own:
            self._own, self._guard = own, Guard(own)


def both_wanted(old: Iterable[WantedName], new: Iterable[WantedName]) -> tuple[WantedName, ...]:
    """The names of both; an address enters only where both policies let it."""
    found: dict[DnsName, WantedName] = {each.name: each for each in old}
    for each in new:
        known = found.get(each.name)
        allowances = each.allowances | (known.allowances if known else frozenset())
        found[each.name] = WantedName(each.name, allowances)
    return tuple(found.values())

"""``SetPlans``: what the sets of names are to be given, and what they are known to have.

It compares the address book with what the kernel was given, past the address guard. It changes
nothing itself: plans go out, and what became of them comes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Final, Protocol

from egressproxy.kernel.nft_apply import SetChange
from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable, Mapping

    from egressproxy.errors import KernelError
    from egressproxy.names import DnsName
    from egressproxy.policy.networks import Network
    from egressproxy.resolve.address_book import AddressBook, Entry
    from egressproxy.resolve.guard import Guard

_RENEWED: Final = 1 / 3
"""Part of the grace: an element that should have so much more, or any more and has only so much
left, is given a new timeout. So answers that come every few seconds cost nothing."""
_SAME_S: Final = 1.0
"""Timeouts are whole seconds."""
_SHOWN: Final = 8


class PlanCounters(Protocol):
    """Where it counts; ``observe.counters.Counters.supervisor()`` is one."""

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

    def refuses(self, guard: Guard, address: str) -> bool:
        """Whether an address of the name must not be in its set."""
        return any(guard.refuses(address, allowed) for allowed in self.allowances)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one set is to be given and to lose; ``add`` says when each address runs out.

    ``replaces`` is the first change of a set, which may have elements of a service before us: of
    another policy, past another guard.
    """

    name: DnsName
    set_name: str
    add: Mapping[str, float]
    remove: tuple[str, ...] = ()
    replaces: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.add or self.remove or self.replaces)

    def change(self, now: float) -> SetChange:
        """The same for nft, in seconds from now."""
        timeouts = tuple((address, ceil(end - now)) for address, end in self.add.items())
        return SetChange(self.set_name, timeouts, self.remove, flush=self.replaces)


class SetPlans:
    """What is in the kernel as far as we know; for one thread.

    Args:
        book: what the sets should have.
        sets_of: the names of a name's sets for IPv4 and IPv6.
        counters: a row of this process.
        clock: monotonic seconds, the book's clock.
    """

    def __init__(
        self,
        book: AddressBook,
        sets_of: Callable[[DnsName], tuple[str, str]],
        counters: PlanCounters,
        clock: Callable[[], float],
    ) -> None:
        self._book = book
        self._sets_of = sets_of
        self._counters = counters
        self._clock = clock
        self._table = 0  # counts the tables: what an older one was given is not in this one
        # When the elements of a set run out; one that is not here has what nobody knows.
        self._held: dict[str, dict[str, float]] = {}
        self._refused: dict[DnsName, frozenset[str]] = {}
        self._broken: dict[str, KernelError] = {}  # sets that could not be changed, and why

    @property
    def table(self) -> int:
        """Another number for each table."""
        return self._table

    @property
    def has_failures(self) -> bool:
        """Whether a set could not be changed when it was last tried."""
        return bool(self._broken)

    def keep_only(self, names: Container[DnsName]) -> None:
        """Forget the sets of all other names: the table has them no more."""
        self._refused = {name: found for name, found in self._refused.items() if name in names}
        kept = {set_name for name in self._refused for set_name in self._sets_of(name)}
        self._held = {set_name: held for set_name, held in self._held.items() if set_name in kept}
        self._broken = {name: why for name, why in self._broken.items() if name in kept}

    def forget_table(self) -> None:
        """The table was made anew, and its sets are empty."""
        self._table += 1
        self._held.clear()

    def of(self, names: Iterable[WantedName], guard: Guard) -> list[Plan]:
        """What is to be done for these names; nothing where the kernel has what it should."""
        plans = [plan for wanted in names for plan in self._plans(wanted, guard)]
        return [plan for plan in plans if not plan.is_empty]

    def done(self, plans: Iterable[Plan], table: int, failed: Mapping[str, KernelError]) -> None:
        """What became of plans for the table of that number; ``failed`` is by set."""
        plans = tuple(plans)
        self._note_failed([plan for plan in plans if plan.set_name in failed], failed)
        for plan in plans:
            if plan.set_name in failed:
                continue
            if table == self._table:
                self._broken.pop(plan.set_name, None)
                held = {} if plan.replaces else dict(self._held.get(plan.set_name, {}))
                held.update(plan.add)
                for address in plan.remove:
                    held.pop(address, None)
                self._held[plan.set_name] = held

    def left_open(self, names: Iterable[WantedName], guard: Guard) -> KernelError | None:
        """Why a set may still have an address that must not be in it; ``None`` if none has."""
        for wanted in names:
            for set_name in self._sets_of(wanted.name):
                why, held = self._broken.get(set_name), self._held.get(set_name)
                if why and (held is None or any(wanted.refuses(guard, each) for each in held)):
                    return why
        return None

    def _plans(self, wanted: WantedName, guard: Guard) -> tuple[Plan, ...]:
        entries = self._book.entries_of(wanted.name)
        v4, v6 = self._sets_of(wanted.name)
        known = {e.address for e in entries} | {*self._held.get(v4, ()), *self._held.get(v6, ())}
        refused = frozenset(address for address in known if wanted.refuses(guard, address))
        self._note_refused(wanted.name, refused)
        of_family = (
            (v4, [entry for entry in entries if ":" not in entry.address]),
            (v6, [entry for entry in entries if ":" in entry.address]),
        )
        # Without an answer of a family its set keeps what a service before us was answered.
        return tuple(
            self._plan(wanted.name, set_name, found, refused)
            for set_name, found in of_family
            if found or set_name in self._held
        )

    def _plan(
        self, name: DnsName, set_name: str, entries: list[Entry], refused: frozenset[str]
    ) -> Plan:
        now = self._clock()
        known = self._held.get(set_name)
        held = {a: end for a, end in (known or {}).items() if end > now}
        if known is not None:
            self._held[set_name] = held
        slack_s = self._book.grace_s * _RENEWED
        add = {}
        for entry in entries:
            end = held.get(entry.address, now)
            enough = entry.expires_at - (_SAME_S if end < now + slack_s else slack_s)
            if end < enough and entry.address not in refused:
                add[entry.address] = entry.expires_at
        remove = tuple(address for address in held if address in refused)
        return Plan(name, set_name, add, remove, replaces=known is None)

    def _note_refused(self, name: DnsName, refused: frozenset[str]) -> None:
        new = refused - self._refused.get(name, frozenset())
        self._refused[name] = refused
        if new:
            self._counters.refused_addresses(len(new))
            journal().warning(
                "addresses are kept out of a network rule",
                name=name,
                addresses=sorted(new)[:_SHOWN],
                hint="not public: list them in the rule's addresses if they are meant",
            )

    def _note_failed(self, plans: Collection[Plan], failed: Mapping[str, KernelError]) -> None:
        """Count all, and say of the first that are new why: with the table all are gone."""
        new = [plan for plan in plans if plan.set_name not in self._broken]
        for _ in plans:
            self._counters.set_error()
        self._broken |= {plan.set_name: failed[plan.set_name] for plan in plans}
        for plan in new[:_SHOWN]:
            why = str(failed[plan.set_name])
            journal().warning("a set of names is not filled", name=plan.name, why=why)
        if len(new) > _SHOWN:
            journal().warning("other sets of names are not filled", sets=len(new) - _SHOWN)

"""What a reload would newly deny, asked before it happens: flows of the last day, and open ones.

For a thread: it blocks, for as long as it is given. Whoever asks decides what is too much.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from egressproxy.policy.ruleset import Ruleset
from egressproxy.policy.verdict import Action
from egressproxy.review.model import Filter
from egressproxy.review.queries import MAX_SUBJECTS, subjects
from egressproxy.review.replay import replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from egressproxy.review.model import SubjectCount
    from egressproxy.review.replay import Change
    from egressproxy.review.store import Store

DAY_S: Final = 86400.0
BUDGET_S: Final = 20.0
MAX_NAMED: Final = 10
"""Targets that the answer names."""

_LOOKS: Final = 256  # subjects between two looks at the clock


@dataclass(frozen=True, slots=True, kw_only=True)
class NewlyDenied:
    """Flows that were let through in the span and would not be under the new policy.

    ``flows`` is their number, ``targets`` how many names or addresses they went to, ``changes`` the
    commonest of them. ``replayed`` is the number of flows let through that were asked about: none
    where allows are not recorded. ``is_complete`` is false where time (``is_late``) or the bound of
    one answer ended it early; the commonest flows were asked about first.
    """

    flows: int
    targets: int
    changes: tuple[Change, ...]
    replayed: int
    is_complete: bool
    is_late: bool = False

    def __str__(self) -> str:
        if not self.flows:
            return f"none of {self.replayed:,} flows"
        named = ", ".join(f"{one.target}:{one.port} ({one.count:,})" for one in self.changes[:3])
        more = ", …" if self.targets > len(self.changes[:3]) else ""
        return f"{self.flows:,} of {self.replayed:,} flows: {named}{more}"


def newly_denied(
    store: Store,
    new: Ruleset,
    *,
    now: float,
    span_s: float = DAY_S,
    old: Ruleset | None = None,
    gateways: tuple[str, ...] = (),
    opened: Sequence[SubjectCount] = (),
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.monotonic,
) -> NewlyDenied:
    """Replay what was let through since ``now - span_s`` under a new policy.

    Args:
        store: where the records are; a reader will do.
        new: the candidate; copied, so that it may be in use elsewhere.
        now: POSIX seconds.
        span_s: how far back.
        old: the policy in force, copied too: what that denies by now is not newly denied.
        gateways: whose flows count, in a store that several share; all where it is empty.
        opened: flows that are open, and so in no record of the span yet.
        budget_s: seconds after which no further flow is judged.
        clock: seconds that only grow.

    Raises:
        StoreError: the store cannot be read.
    """
    deadline = clock() + budget_s
    since = now - span_s
    allowed = subjects(store, Filter(since=since, is_denied=False, gateways=gateways))
    audited = subjects(store, Filter(since=since, is_denied=True, gateways=gateways))
    passed = [each for each in audited if each.subject.action is Action.ALLOW]
    counts = _Timed(chain(opened, allowed, passed), deadline, clock)
    before = None if old is None else Ruleset(old.program)
    denied = replay(counts, before, Ruleset(new.program), now).newly_denied
    return NewlyDenied(
        flows=sum(change.count for change in denied),
        targets=len({change.target for change in denied}),
        changes=denied[:MAX_NAMED],
        replayed=counts.flows,
        is_complete=not counts.is_late and max(len(allowed), len(audited)) < MAX_SUBJECTS,
        is_late=counts.is_late,
    )


class _Timed:
    """Counts until a deadline, adding up their flows."""

    def __init__(
        self, counts: Iterable[SubjectCount], deadline: float, clock: Callable[[], float]
    ) -> None:
        self._counts = counts
        self._deadline = deadline
        self._clock = clock
        self.flows = 0
        self.is_late = False

    def __iter__(self) -> Iterator[SubjectCount]:
        for number, each in enumerate(self._counts):
            if number % _LOOKS == 0 and self._clock() > self._deadline:
                self.is_late = True
                return
            self.flows += each.count
            yield each

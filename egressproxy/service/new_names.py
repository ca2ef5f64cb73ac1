"""``NewNames``: for ``mode: warn-on-new``, what the review store remembers becomes known names.

Doubt enforces: without a store, before its first answer, and when it has not answered for
``STALE_S``, every name counts as known.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from egressproxy.errors import StoreError
from egressproxy.policy.program import end_of_day
from egressproxy.policy.rules import Mode
from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from collections.abc import Callable

    from egressproxy.policy.known import Known
    from egressproxy.policy.rules import Policy
    from egressproxy.review.known import Memory

STALE_S: Final = 3600.0
_ROUND_S: Final = 3600
"""Names become known by the hour, so that policies are shipped to workers no more often."""


class NewNames:
    """Blocks; may be called from any thread.

    Args:
        place: the review store, ``None`` where there is none.
        clock: POSIX seconds.
    """

    def __init__(self, place: str | None, clock: Callable[[], float] = time.time) -> None:
        self._place = place
        self._clock = clock
        self._lock = threading.Lock()
        self._memory: Memory | None = None
        self._known: Known | None = None
        self._known_at = 0.0
        self._trouble = ""
        self._has_asked = False

    def known(self, policy: Policy) -> Known | None:
        """What the policy is to take for known; ``None`` is every name."""
        now = self._clock()
        if policy.mode is not Mode.WARN_ON_NEW or now >= end_of_day(policy.warn_until):
            return None
        with self._lock:
            if self._place is None:
                self._complain("there is no review store", "--review-store remembers names")
                return None
            try:
                self._ask(self._place, policy.warn_window_s, now)
            except StoreError as error:
                if now - self._known_at >= STALE_S:
                    self._known, self._memory = None, None
                # A new service is asked once before its recorder makes the store.
                if self._has_asked or error.code != "missing":
                    self._complain(error.message, error.hint)
            self._has_asked = True
            return self._known

    def _ask(self, place: str, window_s: int, now: float) -> None:
        # Not at the top: the database's modules are for those who ask for them.
        from egressproxy.review.known import known_names, memory_of
        from egressproxy.review.store import open_store

        before = (now - window_s) // _ROUND_S * _ROUND_S
        with open_store(place, is_reader=True) as store:
            memory = memory_of(store, before, now)
            if memory != self._memory:
                self._known = known_names(store, before, memory)
                journal().info(
                    "names that are not new are known",
                    names=memory.names,
                    crowded_sources=len(memory.crowded),
                )
            self._memory = memory
        self._known_at, self._trouble = now, ""

    def _complain(self, why: str, hint: str) -> None:
        what = "warn-on-new enforces: every name counts as known"
        if self._known is not None:
            what = "warn-on-new cannot tell which names are new: its last answer counts for an hour"
        trouble = f"{what}, {why}"
        if trouble != self._trouble:
            journal().warning(what, why=why, hint=hint)
        self._trouble = trouble

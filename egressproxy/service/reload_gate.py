"""``ReloadGate``: no reload denies more of yesterday's flows than the operator accepts.

Where the store cannot be asked there is no answer, and so no reload: that is tried again.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from egressproxy.errors import StoreError
from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from egressproxy.review.gate import NewlyDenied
    from egressproxy.service.generation import Generation
    from egressproxy.service.options import RunOptions


@dataclass(frozen=True, slots=True)
class ReloadGate:
    """Compares policies by the flows of the last day.

    ``place`` is the review store, ``gateway`` whose flows count, ``most`` how many may be newly
    denied.
    """

    place: str
    gateway: str
    most: int

    async def objection(self, old: Generation, new: Generation) -> str:
        """Why the new policy shall not replace the old one; empty where it may.

        Raises:
            StoreError: the store cannot be asked, or not in time.
        """
        found = await asyncio.to_thread(self._ask, old, new)
        if found.flows > self.most:
            return (
                f"it would newly deny {found}; {self.most:,} are accepted"
                " (hint: egressproxy reload --force)"
            )
        if found.is_late:
            raise StoreError(
                f"{self.place} is too slow: only {found.replayed:,} flows of the last day were held"
                " against the new policy in time",
                hint="it is tried again; egressproxy reload --force asks nobody",
            )
        if not (found.is_complete and found.replayed):
            journal().warning(
                "not every flow of the last day was held against the new policy",
                replayed=found.replayed,
                newly_denied=found.flows,
            )
        return ""

    def _ask(self, old: Generation, new: Generation) -> NewlyDenied:
        # Not at the top: the database's modules are for those who ask for them.
        from egressproxy.review.gate import newly_denied
        from egressproxy.review.store import open_store

        with open_store(self.place, is_reader=True) as store:
            return newly_denied(
                store, new.ruleset, now=time.time(), old=old.ruleset, gateways=(self.gateway,)
            )


def reload_gate(options: RunOptions) -> ReloadGate | None:
    """The gate of a service, where its operator wants one."""
    most = options.review_max_newly_denied
    if options.review_store is None or most is None:
        return None
    return ReloadGate(options.review_store, options.gateway, most)

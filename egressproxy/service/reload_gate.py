"""``ReloadGate``: no reload denies more of yesterday's flows than the operator accepts.

Open flows count too: a tunnel has its record when it ends, and the reload would end it.

Where the store cannot be asked there is no answer, and so no reload: that is tried again.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.errors import StoreError
from egressproxy.observe.record import NameSource, Plane
from egressproxy.planes.flow import Stage
from egressproxy.policy.verdict import Action, Pass, Reason
from egressproxy.service.journal import journal
from egressproxy.service.open_flows import FORWARDED_STAGE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from egressproxy.review.gate import NewlyDenied
    from egressproxy.review.model import SubjectCount
    from egressproxy.service.generation import Generation
    from egressproxy.service.open_flows import OpenFlow
    from egressproxy.service.options import RunOptions

    AskOpen = Callable[[], Awaitable[Sequence[OpenFlow]]]

DAY_S: Final = 86400.0
_UNDER_WAY: Final = frozenset({Stage.RELAY.value, Stage.HTTP.value, FORWARDED_STAGE})


@dataclass(frozen=True, slots=True)
class ReloadGate:
    """Compares policies by the flows of the last day.

    ``place`` is the review store, ``gateway`` whose flows count, ``most`` how many may be newly
    denied, ``open_flows`` tells what is open.
    """

    place: str
    gateway: str
    most: int
    open_flows: AskOpen | None = None

    async def objection(self, old: Generation, new: Generation) -> str:
        """Why the new policy shall not replace the old one; empty where it may.

        Raises:
            StoreError: the store cannot be asked, or not in time.
        """
        opened = [] if self.open_flows is None else await self.open_flows()
        found = await asyncio.to_thread(self._ask, old, new, opened)
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

    def _ask(self, old: Generation, new: Generation, opened: Sequence[OpenFlow]) -> NewlyDenied:
        # Not at the top: the database's modules are for those who ask for them.
        from egressproxy.review.gate import newly_denied
        from egressproxy.review.store import open_store

        now = time.time()
        with open_store(self.place, is_reader=True) as store:
            return newly_denied(
                store,
                new.ruleset,
                now=now,
                old=old.ruleset,
                gateways=(self.gateway,),
                opened=[_count(each, now) for each in opened if _is_unrecorded(each, now)],
            )


def _is_unrecorded(flow: OpenFlow, now: float) -> bool:
    """Whether no record of the last day has it; what audit let pass has one of its beginning."""
    if flow.stage not in _UNDER_WAY or not flow.reason:
        return False
    return not flow.would_deny or flow.since is None or flow.since < now - DAY_S


def _count(flow: OpenFlow, now: float) -> SubjectCount:
    from egressproxy.review.model import Subject, SubjectCount

    since = now if flow.since is None else flow.since
    subject = Subject(
        id=0,
        gateway="",
        action=Action.ALLOW,
        reason=Reason(flow.reason),
        rule=flow.rule,
        decided_by=Pass.NONE,
        would_deny=flow.would_deny,
        plane=Plane(flow.plane),
        protocol=flow.protocol,
        src_ip=flow.src_ip,
        source_group=None,
        dst_ip=flow.dst_ip,
        dst_port=flow.dst_port,
        name=flow.name,
        name_source=NameSource.NONE,
        note="",
    )
    return SubjectCount(subject=subject, count=1, first_at=since, last_at=since)


def reload_gate(options: RunOptions, open_flows: AskOpen | None = None) -> ReloadGate | None:
    """The gate of a service, where its operator wants one."""
    most = options.review_max_newly_denied
    if options.review_store is None or most is None:
        return None
    return ReloadGate(options.review_store, options.gateway, most, open_flows)

"""``OpenFlows``: the flows that are open now, of all workers and of the kernel.

Of very many the oldest and the busiest. Workers are asked only when somebody looks, at most once in
``SHARED_S`` for everybody who does; one that does not answer in time is left out.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import time
from dataclasses import dataclass
from functools import partial
from heapq import nlargest, nsmallest
from itertools import islice
from typing import TYPE_CHECKING, Final

from egressproxy.errors import KernelError, ServiceError
from egressproxy.kernel.conntrack import Conntrack
from egressproxy.kernel.marks import FORWARDED
from egressproxy.kernel.packet import TCP, UDP
from egressproxy.policy.verdict import Flow
from egressproxy.ports import Protocol
from egressproxy.service.journal import journal
from egressproxy.service.messages import Survey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from egressproxy.kernel.conntrack import Entry
    from egressproxy.planes.survey import FlowFacts
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.resolve.address_book import AddressBook
    from egressproxy.service.crew import Crew
    from egressproxy.service.process import WorkerProcess
    from egressproxy.service.slot import Slot

MOST: Final = 250
"""So many of the oldest, and so many of the busiest."""
MOST_FORWARDED: Final = 500
"""Of the kernel's, which has no order of its own: the first it lists."""
FORWARDED_STAGE: Final = "forward"
PATIENCE_S: Final = 3.0
SHARED_S: Final = 1.0
_PROTOCOLS: Final = {TCP: Protocol.TCP, UDP: Protocol.UDP}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFlow:
    """A flow that is open; texts that a peer chose (``name``, ``alpn``) are raw.

    ``worker`` is ``None`` for a connection that the kernel forwards, and then ``since`` (POSIX
    seconds), ``age_s``, ``idle_s`` and the octets too: the kernel does not say; ``flow_id`` is
    empty, and ``name`` what this gateway last resolved to ``dst_ip``. ``stage`` is a
    ``planes.flow.Stage`` or ``forward``. ``reason`` and ``would_deny`` are the verdict's so far.
    """

    worker: int | None
    flow_id: str
    plane: str
    stage: str
    protocol: str
    since: float | None
    age_s: float | None
    idle_s: float | None
    src_ip: str
    src_port: int
    dst_ip: str | None
    dst_port: int
    name: str | None
    alpn: tuple[str, ...]
    tls_versions: tuple[str, ...]
    rule: str | None
    reason: str
    would_deny: bool
    dialled_ip: str | None
    bytes_up: int | None
    bytes_down: int | None


class OpenFlows:
    """Asks and merges; answers are shared for ``SHARED_S``.

    Args:
        crew: the workers, and the policy in force.
        book: names of the addresses that the kernel forwards to; ``None`` where it forwards none.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        crew: Crew,
        book: AddressBook | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._crew = crew
        self._book = book
        self._clock = clock
        self._lock = asyncio.Lock()
        self._found: list[OpenFlow] = []
        self._found_at: float | None = None

    async def now(self) -> list[OpenFlow]:
        """The open flows, the oldest first, then those of the kernel."""
        async with self._lock:
            if self._found_at is None or self._clock() - self._found_at >= SHARED_S:
                self._found = [*await self._of_workers(), *await self._of_kernel()]
                self._found_at = self._clock()
            return list(self._found)

    async def _of_workers(self) -> list[OpenFlow]:
        slots = [slot for slot in self._crew.slots if slot.process is not None]
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(_ask(slot), name=f"survey {slot.index}") for slot in slots]
        return chosen(flow for task in asked for flow in task.result())

    async def _of_kernel(self) -> list[OpenFlow]:
        if self._book is None:
            return []
        try:
            entries = await asyncio.to_thread(_entries)
        except KernelError as error:
            journal().warning("forwarded connections cannot be listed", why=str(error))
            return []
        ruleset, now = self._crew.current.ruleset, time.time()
        return [forwarded_flow(entry, ruleset, self._book, now) for entry in entries]


def chosen(flows: Iterable[OpenFlow]) -> list[OpenFlow]:
    """The oldest and the busiest of the workers' flows, the oldest first."""
    found = list(flows)
    oldest = nsmallest(MOST, found, key=_since)
    busiest = nlargest(MOST, found, key=_octets)
    return sorted({flow.flow_id: flow for flow in (*oldest, *busiest)}.values(), key=_since)


def _entries() -> list[Entry]:
    with Conntrack() as conntrack:
        return list(islice(conntrack.entries(mark=FORWARDED, mask=FORWARDED), MOST_FORWARDED))


async def _ask(slot: Slot) -> list[OpenFlow]:
    """One worker's flows; none where it does not answer, which its heartbeat takes care of."""
    process = slot.process
    if process is None:
        return []
    try:
        found = await _survey(process)
    except (ServiceError, OSError) as error:
        journal().warning("open flows are not told", worker=slot.index, why=str(error))
        return []
    return [_of_worker(slot.index, facts) for facts in found]


async def _survey(process: WorkerProcess) -> list[FlowFacts]:
    paper = os.memfd_create("egressproxy-flows", os.MFD_CLOEXEC)
    try:
        await process.ask(partial(Survey, most=MOST), timeout_s=PATIENCE_S, descriptors=(paper,))
        return _read(paper)
    finally:
        os.close(paper)


def _read(paper: int) -> list[FlowFacts]:
    with open(paper, "rb", closefd=False) as file:
        file.seek(0)
        found: list[FlowFacts] = pickle.load(file)  # noqa: S301 - from our own worker
    return found


def _of_worker(worker: int, facts: FlowFacts) -> OpenFlow:
    return OpenFlow(
        worker=worker,
        flow_id=facts.flow_id,
        plane=facts.plane,
        stage=facts.stage,
        protocol=facts.protocol,
        since=facts.since,
        age_s=facts.age_s,
        idle_s=facts.idle_s,
        src_ip=facts.src,
        src_port=facts.src_port,
        dst_ip=facts.dst,
        dst_port=facts.dst_port,
        name=facts.name,
        alpn=facts.alpn,
        tls_versions=facts.tls_versions,
        rule=facts.rule,
        reason=facts.reason,
        would_deny=facts.would_deny,
        dialled_ip=facts.dialled_ip,
        bytes_up=facts.bytes_up,
        bytes_down=facts.bytes_down,
    )


def forwarded_flow(entry: Entry, ruleset: Ruleset, book: AddressBook, now: float) -> OpenFlow:
    """A tracked connection, with the rule that allows it by its address; on the loop's thread."""
    protocol = _PROTOCOLS.get(entry.protocol)
    name = next(iter(book.names_of(entry.dst)), None)
    verdict = None
    if protocol is not None:
        flow = Flow(protocol, entry.src, entry.dport, name, entry.dst)
        verdict = ruleset.decide_network(flow, now)
    return OpenFlow(
        worker=None,
        flow_id="",
        plane="network",
        stage=FORWARDED_STAGE,
        protocol=str(entry.protocol) if protocol is None else str(protocol),
        since=None,
        age_s=None,
        idle_s=None,
        src_ip=entry.src,
        src_port=entry.sport,
        dst_ip=entry.dst,
        dst_port=entry.dport,
        name=name,
        alpn=(),
        tls_versions=(),
        rule=None if verdict is None else verdict.rule_id,
        reason="" if verdict is None else verdict.reason.value,
        would_deny=verdict is not None and verdict.would_deny,
        dialled_ip=entry.reply_src,
        bytes_up=None,
        bytes_down=None,
    )


def _since(flow: OpenFlow) -> float:
    return flow.since or 0.0


def _octets(flow: OpenFlow) -> int:
    return (flow.bytes_up or 0) + (flow.bytes_down or 0)

"""All workers of a supervisor together: one policy, one readiness, one end.

One lock orders everything that changes which policy a worker serves: a reload, and the first policy
of a restarted worker. So a worker that starts during a reload gets either the old policy before it
or the new one after it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from egressproxy.errors import EgressproxyError, ServiceError
from egressproxy.service import orders
from egressproxy.service.child import exit_text
from egressproxy.service.journal import journal
from egressproxy.service.messages import Committed
from egressproxy.service.process import WorkerTimeoutError
from egressproxy.service.report import Installation
from egressproxy.service.slot import Slot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from egressproxy.service.generation import Generation
    from egressproxy.service.options import WorkerSpec
    from egressproxy.service.process import WorkerProcess

_T = TypeVar("_T")


class Crew:
    """All slots; ``current`` is the generation that every serving worker has committed.

    Args:
        first: the generation to start with; the crew closes it when it is superseded.
        patience_s: how long a worker may take to answer before it counts as hung.
        on_worker_lost: called with the index of a worker that died, before its successor starts.
    """

    def __init__(
        self, first: Generation, *, patience_s: float, on_worker_lost: Callable[[int], None]
    ) -> None:
        self.current = first
        self.patience_s = patience_s
        self.policy_lock = asyncio.Lock()
        self.stopping = asyncio.Event()
        self.ready = asyncio.Event()
        self.reopen_asked = asyncio.Event()
        self.failure: ServiceError | None = None
        """Why the crew gave up: a worker ended before all were ready for the first time."""
        self.slots: list[Slot] = []
        self._on_worker_lost = on_worker_lost

    def add(self, spec: WorkerSpec, descriptors: Sequence[int]) -> None:
        """Add a slot; its descriptors (counters, limits, listeners) stay the caller's."""
        self.slots.append(Slot(self, spec, descriptors))

    @property
    def is_ready(self) -> bool:
        """Whether every worker serves the current policy and none is asked to stop."""
        return not self.stopping.is_set() and all(slot.is_serving for slot in self.slots)

    def silence_s(self, now: float) -> float:
        """For how long some slot has had no worker that answers; 0 once they are to stop.

        ``now`` is monotonic seconds.
        """
        if self.stopping.is_set():
            return 0.0
        return max((now - slot.answered_at for slot in self.slots), default=0.0)

    async def stops_within(self, seconds: float) -> bool:
        """Wait for the order to stop, at most so long; whether it has come."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return False
        return True

    async def keep_alive(self) -> None:
        """Run all workers until they are told to stop and have ended, or ``failure`` is set."""
        async with asyncio.TaskGroup() as group:
            for slot in self.slots:
                group.create_task(slot.keep_alive(), name=f"slot {slot.index}")

    async def install(
        self, new: Generation, before_commit: Callable[[], Awaitable[None]] | None = None
    ) -> Installation:
        """Put a generation in force everywhere, or nowhere.

        Args:
            new: the generation.
            before_commit: awaited when every worker is prepared and none has committed; what it
                raises is raised here.

        Raises:
            ServiceError: a worker could not prepare it; every worker keeps the current one, and a
                worker that hung is restarted. ``new`` then still belongs to the caller.
        """
        async with self.policy_lock:
            serving = [slot for slot in self.slots if slot.is_serving]
            prepared = await self._everywhere(serving, partial(orders.prepare, generation=new))
            failed = [answer for answer in prepared if isinstance(answer, ServiceError)]
            if failed:
                await self._everywhere(serving, partial(orders.abort, generation=new))
                raise ServiceError("; ".join(str(error) for error in failed))
            if before_commit is not None:
                try:
                    await before_commit()
                except EgressproxyError:
                    await self._everywhere(serving, partial(orders.abort, generation=new))
                    raise
            # From here on the new generation is the truth: a worker that cannot follow is replaced.
            old, self.current = self.current, new
            answers = await self._everywhere(serving, partial(orders.commit, generation=new))
            for slot, answer in zip(serving, answers, strict=True):
                if isinstance(answer, ServiceError) and slot.process:
                    slot.process.kill()
            old.close()
        done = [answer for answer in answers if isinstance(answer, Committed)]
        return Installation(
            workers=len(done),
            revoked=sum(answer.revoked for answer in done),
            kept=sum(answer.kept for answer in done),
            stall_s=max((answer.stall_s for answer in done), default=0.0),
        )

    async def reopen_logs_when_asked(self) -> None:
        """Let every worker open its record file anew, each time ``reopen_asked`` is set."""
        while True:
            await self.reopen_asked.wait()
            self.reopen_asked.clear()
            await self._everywhere(self.slots, orders.reopen)
            journal().info("record log reopened")

    async def drain(self) -> None:
        """Let every worker finish its flows, take no new ones, and end; none is started again."""
        self.stopping.set()
        await self._everywhere(self.slots, orders.drain)

    def cut(self) -> None:
        """Cut every flow and end every worker now."""
        self.stopping.set()
        for slot in self.slots:
            if slot.process:
                slot.process.end()

    def on_worker_serving(self, slot: Slot, pid: int) -> None:
        """A slot reports that its worker has its policy."""
        journal().info("worker serves", worker=slot.index, pid=pid, restarts=slot.restarts)
        if self.is_ready:
            self.ready.set()

    def on_worker_ended(self, slot: Slot, pid: int, code: int) -> None:
        """A slot reports that its worker is gone."""
        how = exit_text(code)
        if self.stopping.is_set():
            journal().info("worker ended", worker=slot.index, pid=pid, how=how)
            return
        journal().error("worker died", worker=slot.index, pid=pid, how=how)
        self._on_worker_lost(slot.index)
        self._give_up_unless_ready(
            ServiceError(
                f"worker {slot.index} ended before it could serve ({how})",
                hint="its own message stands above",
            )
        )

    def on_worker_failed(self, slot: Slot, error: ServiceError) -> None:
        """A slot reports that its worker cannot be had, or does not do as told."""
        journal().error("worker failed", worker=slot.index, why=str(error))
        self._give_up_unless_ready(error)

    def _give_up_unless_ready(self, error: ServiceError) -> None:
        """What has never worked is told to the person who started it, not tried for ever."""
        if not self.ready.is_set() and self.failure is None:
            self.failure = error
            self.cut()

    async def _everywhere(
        self, slots: Sequence[Slot], order: Callable[[WorkerProcess, float], Awaitable[_T]]
    ) -> list[_T | ServiceError]:
        """Give an order to every slot's worker at once; a failure takes the answer's place."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._one(slot, order), name=f"order to worker {slot.index}")
                for slot in slots
            ]
        return [task.result() for task in tasks]

    async def _one(
        self, slot: Slot, order: Callable[[WorkerProcess, float], Awaitable[_T]]
    ) -> _T | ServiceError:
        process = slot.process
        if process is None:
            return ServiceError(f"worker {slot.index} is not running")
        try:
            return await order(process, self.patience_s)
        except ServiceError as error:
            if isinstance(error, WorkerTimeoutError):
                process.kill()
            return error

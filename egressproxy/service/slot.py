"""The place of one worker: a process is kept alive in it until the crew stops.

A slot's descriptors (listeners above all) outlive its processes, so that a worker that dies loses
no connection: new ones wait in the kernel's queue until its successor accepts them.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from egressproxy.errors import ServiceError
from egressproxy.service import orders
from egressproxy.service.messages import Boot
from egressproxy.service.process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.service.crew import Crew
    from egressproxy.service.options import WorkerSpec

FIRST_RESTART_DELAY_S: Final = 0.05
MAX_RESTART_DELAY_S: Final = 5.0
"""A dead worker's share of new connections waits this long at most."""
STEADY_AFTER_S: Final = 30.0
"""After a worker that lived this long the delays start anew."""
HEARTBEAT_S: Final = 1.0
START_PATIENCE_S: Final = 30.0
"""For a new process to load its modules."""


class Slot:
    """One worker's spec and descriptors, its restarts so far, and its process if any."""

    def __init__(self, crew: Crew, spec: WorkerSpec, descriptors: Sequence[int]) -> None:
        self.spec = spec
        self.restarts = 0
        self.process: WorkerProcess | None = None
        self.answered_at = time.monotonic()
        """When a worker of this slot last answered that it serves."""
        self._has_policy = False
        self._crew = crew
        self._descriptors = descriptors

    @property
    def is_serving(self) -> bool:
        """Whether its worker has the policy and takes new flows."""
        return self._has_policy and not self._crew.stopping.is_set()

    @property
    def index(self) -> int:
        """Which worker, from 0."""
        return self.spec.index

    async def keep_alive(self) -> None:
        """Run worker after worker until the crew stops."""
        delay_s = FIRST_RESTART_DELAY_S
        while not self._crew.stopping.is_set():
            started = time.monotonic()
            await self._run_one()
            if time.monotonic() - started > STEADY_AFTER_S:
                delay_s = FIRST_RESTART_DELAY_S
            if await self._crew.stops_within(delay_s):
                return
            self.restarts += 1
            delay_s = min(2 * delay_s, MAX_RESTART_DELAY_S)

    async def _run_one(self) -> None:
        try:
            process = self.process = WorkerProcess(self.index)
        except ServiceError as error:
            self._crew.on_worker_failed(self, error)
            return
        try:
            async with asyncio.TaskGroup() as group:
                duties = group.create_task(self._attend(process), name=f"worker {self.index}")
                code = await process.exited
                duties.cancel()
        finally:
            process.kill()
            self.process, self._has_policy = None, False
        self._crew.on_worker_ended(self, process.pid, code)

    async def _attend(self, process: WorkerProcess) -> None:
        """Bring a worker into service, then watch that it answers; one that fails is killed."""
        try:
            await self._bring_up(process)
            while True:
                await asyncio.sleep(HEARTBEAT_S)
                await orders.status(process, self._crew.patience_s)
                self.answered_at = time.monotonic()
        except ServiceError as error:
            if not process.exited.done() and not self._crew.stopping.is_set():
                self._crew.on_worker_failed(self, error)
            process.kill()

    async def _bring_up(self, process: WorkerProcess) -> None:
        crew = self._crew
        await process.ask(
            partial(Boot, spec=self.spec),
            timeout_s=START_PATIENCE_S,
            descriptors=self._descriptors,
        )
        async with crew.policy_lock:
            await orders.install(process, crew.patience_s, generation=crew.current)
            self._has_policy = True
        self.answered_at = time.monotonic()
        crew.on_worker_serving(self, process.pid)

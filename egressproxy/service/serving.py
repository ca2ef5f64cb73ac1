"""The engine of one worker with everything around it: resolver, record log, counters, timers.

The engine's own epoll descriptor is one reader of the loop; a coarse timer turns its wheel.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from egressproxy.errors import ServiceError
from egressproxy.kernel.addresses import own_addresses
from egressproxy.observe.counters import Counters
from egressproxy.observe.log import RecordLog
from egressproxy.observe.tee import Tee
from egressproxy.planes.context import EngineContext, EngineOptions
from egressproxy.planes.engine import TICK_S, Engine
from egressproxy.planes.limits import FlowLimits
from egressproxy.resolve.guard import Guard
from egressproxy.resolve.resolver import Resolver
from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from egressproxy.planes.engine import SwapReport
    from egressproxy.planes.survey import FlowFacts
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.service.options import WorkerSpec

ADDRESSES_S: Final = 5.0
"""How soon a new address of this machine is known as one that must not be dialled."""
LOG_CLOSE_TIMEOUT_S: Final = 3.0


class Serving:
    """Begins to accept flows with the first ruleset; construct on the running loop.

    Args:
        spec: who this worker is.
        descriptors: counters, limits, the recorder's pipe where ``spec.is_recorded``, then one
            listener for each of ``spec.kinds``; owned from here on.
        on_fault: called with what an engine's turn raised, which is a bug: the engine is not turned
            again.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        descriptors: Sequence[int],
        on_fault: Callable[[Exception], None],
    ) -> None:
        counters, limits, *listeners = descriptors
        tee = Tee(listeners.pop(0)) if spec.is_recorded else None
        self._spec = spec
        self._on_fault = on_fault
        self._loop = asyncio.get_running_loop()
        self._listeners = [socket.socket(fileno=fd) for fd in listeners]
        self._counters = Counters.attach(counters, spec.workers).engine(spec.index)
        self._limits = FlowLimits.attach(limits, spec.workers).worker(spec.index, spec.settings)
        self._log = RecordLog(spec.log.path, spec.settings, self._counters, tee)
        self._resolver = Resolver(
            spec.settings,
            servers=[str(server) for server in spec.servers],
            overrides=spec.overrides,
            counters=self._counters,
        )
        self._engine: Engine | None = None
        self._context: EngineContext | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def active(self) -> int:
        """Open flows."""
        return self._engine.active if self._engine else 0

    def commit(self, ruleset: Ruleset) -> SwapReport | None:
        """Put a ruleset in force; the first one opens the doors and has no report."""
        if self._engine is not None:
            return self._engine.swap(ruleset)
        context = self._context = self._make_context(ruleset)
        engine = self._engine = Engine(context)
        for listener, kind in zip(self._listeners, self._spec.kinds, strict=True):
            engine.add_listener(listener, kind)
        self._loop.add_reader(engine.fileno(), self._turn)
        self._tick()
        self._look_for_addresses()
        return None

    def drain(self) -> None:
        """Take no new flow; those that are open after ``drain_timeout_s`` are cut."""
        if self._engine is not None:
            self._engine.drain()
        for listener in self._listeners:
            listener.close()

    async def survey(self, most: int) -> list[FlowFacts]:
        """The open flows: ``most`` of the oldest and of the busiest."""
        if self._engine is None:
            return []
        survey = self._engine.survey(most)
        while not survey.turn():  # noqa: ASYNC110 - a slice a turn
            await asyncio.sleep(0)
        return survey.facts()

    def reopen_log(self) -> None:
        """Open the record file anew."""
        self._log.reopen()

    async def close(self) -> None:
        """Close every flow, write what is left of the log, let go of everything."""
        for timer in self._timers.values():
            timer.cancel()
        if self._engine is not None:
            self._loop.remove_reader(self._engine.fileno())
            self._engine.close()
        for listener in self._listeners:
            listener.close()
        await self._resolver.aclose()
        self._counters.flush()
        await asyncio.to_thread(self._log.close, LOG_CLOSE_TIMEOUT_S)

    def _make_context(self, ruleset: Ruleset) -> EngineContext:
        spec = self._spec
        own = own_addresses()
        return EngineContext(
            settings=spec.settings,
            ruleset=ruleset,
            resolver=self._resolver,
            guard=Guard(own),
            log=self._log,
            counters=self._counters,
            limits=self._limits,
            own_addresses=own,
            options=EngineOptions(
                allow_records=spec.log.allows,
                sample_every=spec.log.sample_every,
                mark=spec.mark,
                worker=spec.index,
            ),
        )

    def _turn(self) -> None:
        if self._engine is not None:
            self._guarded(self._engine, self._engine.ready)

    def _tick(self) -> None:
        if self._engine is not None:
            self._timers["tick"] = self._loop.call_later(TICK_S, self._tick)
            self._guarded(self._engine, self._engine.tick)

    def _look_for_addresses(self) -> None:
        self._timers["addresses"] = self._loop.call_later(ADDRESSES_S, self._look_for_addresses)
        try:
            own = own_addresses()
        except ServiceError as error:
            journal().warning("own addresses are not to be had", why=str(error))
            return
        if self._context is not None and own != self._context.own_addresses:
            self._context.own_addresses = own
            self._context.guard = Guard(own)

    def _guarded(self, engine: Engine, turn: Callable[[], None]) -> None:
        try:
            turn()
        except Exception as error:  # noqa: BLE001 - a flow's faults end in the engine; this is a bug
            self._loop.remove_reader(engine.fileno())
            self._on_fault(error)

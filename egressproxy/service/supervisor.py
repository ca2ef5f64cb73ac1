"""The supervisor: start, serve, reload, drain, end. It touches no byte of a flow."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from enum import StrEnum
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from egressproxy.errors import ServiceError
from egressproxy.kernel.host_state import owned
from egressproxy.observe.cells import ReloadOutcome
from egressproxy.observe.counters import Counters
from egressproxy.planes.build import flow_path
from egressproxy.planes.context import ListenerKind
from egressproxy.planes.limits import FlowLimits
from egressproxy.service.activation import inherited_listeners
from egressproxy.service.crew import Crew
from egressproxy.service.file_limit import raise_file_limit
from egressproxy.service.firewall import Firewall
from egressproxy.service.generation import load_generation
from egressproxy.service.journal import journal
from egressproxy.service.listeners import open_listeners
from egressproxy.service.new_names import NewNames
from egressproxy.service.notify import notify
from egressproxy.service.open_flows import OpenFlow, OpenFlows
from egressproxy.service.options import WorkerSpec
from egressproxy.service.process import END_GRACE_S
from egressproxy.service.recording import END_GRACE_S as RECORDER_END_S
from egressproxy.service.recording import Recording, recorder_spec
from egressproxy.service.reload import Reloader
from egressproxy.service.reload_gate import reload_gate
from egressproxy.service.reload_history import MAX_REPORTS, reload_note
from egressproxy.service.report import Outcome, ReloadReport, Trigger, announce
from egressproxy.service.rule_hits import note_rule_hits
from egressproxy.service.tag_age import warn_daily, warn_if_stale
from egressproxy.service.watch import watch
from egressproxy.service.watchdog import feed_watchdog, watchdog_s

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from egressproxy.kernel.firewall_options import FirewallOptions
    from egressproxy.policy.tag_edition import TagEdition
    from egressproxy.service.firewall_configuration import FirewallOrder
    from egressproxy.service.generation import Generation
    from egressproxy.service.listeners import OpenListeners
    from egressproxy.service.options import Listener, RunOptions

COUNTDOWN_S: Final = 2.0
_COUNTED: Final = {
    Outcome.APPLIED: ReloadOutcome.OK,
    Outcome.UNCHANGED: ReloadOutcome.OK,
    Outcome.REFUSED: ReloadOutcome.REFUSED,
    Outcome.FAILED: ReloadOutcome.FAILED,
}


class Phase(StrEnum):
    """Where in its life the service is."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class Supervisor:
    """One service, to be ``run`` once; the rest is for those who look at it (admin).

    Construct on the running loop. ``crew`` and ``last_reload`` are ``None`` until the policy is
    loaded; ``listeners`` then have their real ports. ``firewall`` is ``None`` without an order for
    one, and until the policy is loaded.
    """

    def __init__(self, options: RunOptions, order: FirewallOrder | None = None) -> None:
        self.options = options
        self._order = order
        self.firewall: Firewall | None = None
        self.phase = Phase.STARTING
        self.listeners: tuple[Listener, ...] = ()
        self.crew: Crew | None = None
        self.last_reload: ReloadReport | None = None
        self.reloads: deque[ReloadReport] = deque(maxlen=MAX_REPORTS)
        """Of this service, and before them those that the review store remembers; oldest first."""
        self._recording: Recording | None = None
        self._tags: TagEdition | None = None
        self.counters = Counters.create(options.workers)
        self._limits = FlowLimits.create(options.workers)
        self._reloader: Reloader | None = None
        self._open: OpenFlows | None = None
        self._new_names = NewNames(options.review_store)
        self._stop = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether every worker, and the kernel where it is asked to, enforces the policy."""
        is_enforced = self.firewall.is_up if self.firewall else self._order is None
        is_serving = self.phase is Phase.SERVING and is_enforced
        return is_serving and self.crew is not None and self.crew.is_ready

    async def reload(self, *triggers: Trigger) -> ReloadReport:
        """Reload the policy and await what became of it.

        Raises:
            ServiceError: the service is starting or ending.
        """
        if self._reloader is None or self.phase is Phase.DRAINING:
            raise ServiceError(f"no reload while {self.phase}", code="not_serving")
        return await self._reloader.request(*triggers)

    async def open_flows(self) -> list[OpenFlow]:
        """What is open now, of very many flows the oldest and the busiest; see ``OpenFlows``."""
        return [] if self._open is None else await self._open.now()

    async def run(
        self, beside: Callable[[Supervisor], AbstractAsyncContextManager[object]]
    ) -> None:
        """Serve until a signal ends it; ``beside(self)`` is entered for as long (admin).

        Raises:
            PolicyError: the first policy is bad; every problem of it.
            ServiceError: a listener cannot be had, or the workers do not start.
            KernelError: the kernel's firewall cannot be put up.
            StoreError: the review store cannot be had, and trying again would not help.
        """
        journal().info(
            "starting", version=version("egressproxy"), flow_path=flow_path(), pid=os.getpid()
        )
        raise_file_limit(self.options.settings.max_flows)
        with ExitStack() as stack:
            stack.callback(self.counters.close)
            stack.callback(self._limits.close)
            if self._order is not None:
                stack.enter_context(owned(self._order.state))
            opened = open_listeners(
                self.options.listeners,
                self.options.workers,
                keepalive_s=self.options.settings.keepalive_s,
                inherited=inherited_listeners(os.environ),
            )
            stack.callback(opened.close)
            self.listeners = opened.listeners
            stack.enter_context(self._signals())
            # The recorder loads its modules and opens its store meanwhile.
            async with self._recorder(), beside(self):
                if self._recording is not None:
                    await self._recording.opened()
                    self.reloads.extend(self._recording.past)
                first = await asyncio.to_thread(
                    load_generation,
                    self.options.policy,
                    1,
                    allow_outside=self.options.allow_outside,
                    known=self._new_names.known,
                )
                if not self._stop.is_set():
                    await self._serve(first, opened)

    @asynccontextmanager
    async def _recorder(self) -> AsyncIterator[None]:
        """Where a review store or exports are wanted: a recorder, ended after all it records."""
        store = self.options.review_store
        if store is None and not self.options.exports:
            yield
            return
        spec = recorder_spec(self.options, store, time.time())
        async with Recording(spec, self.counters) as self._recording:
            yield

    async def _serve(self, first: Generation, opened: OpenListeners) -> None:
        async with AsyncExitStack() as stack:
            crew = self.crew = self._recruit(first, opened)
            if self._order is not None:
                order = replace(self._order, options=_with_ports(self._order.options, opened))
                row = self.counters.supervisor()
                tee = self._recording.tee if self._recording is not None else None
                firewall = Firewall(order, self.options, row, lambda: crew.current, tee=tee)
                self.firewall = await stack.enter_async_context(firewall)
            self._open = OpenFlows(crew, self.firewall.book if self.firewall else None)
            await self._keep_serving(crew, opened)
        crew.current.close()
        if crew.failure is not None:
            raise crew.failure

    async def _keep_serving(self, crew: Crew, opened: OpenListeners) -> None:
        reloader = self._reloader = Reloader(
            self.options.policy,
            crew,
            allow_outside=self.options.allow_outside,
            on_report=self._note,
            firewall=self.firewall,
            gate=reload_gate(self.options, self.open_flows),
            known=self._new_names.known,
        )
        async with asyncio.TaskGroup() as group:
            ended = group.create_task(crew.keep_alive(), name="crew")
            stop = group.create_task(self._stop.wait(), name="stop")
            lasting = [group.create_task(self._watchdog(crew), name="watchdog")]
            if self._recording is not None:
                lasting.append(group.create_task(self._recording.keep(), name="recorder"))
            duties = [
                stop,
                group.create_task(self._announce_readiness(crew), name="readiness"),
                group.create_task(crew.reopen_logs_when_asked(), name="log reopening"),
                group.create_task(reloader.run(), name="reloads"),
                group.create_task(reloader.reload_at_expiries(), name="expiries"),
                group.create_task(reloader.keep_known(), name="known names"),
                group.create_task(
                    warn_daily(lambda: crew.current.policy.service_tags), name="age of service tags"
                ),
                group.create_task(
                    watch(reloader.watched, lambda: reloader.request(Trigger.FILE)), name="watch"
                ),
            ]
            if self.firewall is not None:
                duties.append(group.create_task(self.firewall.keep(), name="firewall"))
                if self._recording is not None:
                    noting = note_rule_hits(self.firewall.rule_packets, self._recording.note)
                    duties.append(group.create_task(noting, name="rule hits"))
            await asyncio.wait({ended, stop}, return_when=asyncio.FIRST_COMPLETED)
            for duty in duties:
                duty.cancel()
            limit_s = self.options.settings.drain_timeout_s + END_GRACE_S + RECORDER_END_S
            notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(limit_s * 1e6)}", "STATUS=draining")
            shutting = group.create_task(_shut(crew, opened), name="shutting")
            await self._drain(crew, ended)
            shutting.cancel()
            for task in lasting:
                task.cancel()

    def _recruit(self, first: Generation, opened: OpenListeners) -> Crew:
        options = self.options
        crew = Crew(
            first,
            patience_s=options.settings.worker_timeout_s,
            on_worker_lost=self.counters.restarted,
        )
        recorder = () if self._recording is None else (self._recording.descriptor,)
        for index, sockets in enumerate(opened.sockets):
            spec = WorkerSpec(
                index=index,
                workers=options.workers,
                settings=options.settings,
                kinds=tuple(listener.kind for listener in opened.listeners),
                log=options.log,
                servers=options.servers,
                overrides=options.overrides,
                mark=options.mark,
                is_recorded=bool(recorder),
            )
            listeners = (each.fileno() for each in sockets)
            crew.add(spec, (self.counters.fd, self._limits.fd, *recorder, *listeners))
        self._note(
            ReloadReport(
                outcome=Outcome.APPLIED,
                triggers=(Trigger.START,),
                at=first.loaded_at,
                digest=first.policy.digest,
                service_tags=first.policy.service_tags,
            )
        )
        return crew

    async def _announce_readiness(self, crew: Crew) -> None:
        await crew.ready.wait()
        self.phase = Phase.SERVING
        journal().info(
            "ready",
            listeners=[f"{item.kind} {item.endpoint}" for item in self.listeners],
            workers=self.options.workers,
            policy=str(self.options.policy),
            rules=len(crew.current.policy.rules),
            mode=str(crew.current.policy.mode),
            digest=crew.current.policy.digest,
        )
        notify("READY=1", f"STATUS={self._status(crew)}")

    async def _watchdog(self, crew: Crew) -> None:
        await crew.ready.wait()
        await feed_watchdog(
            watchdog_s(os.environ),
            lambda: crew.silence_s(time.monotonic()),
            worker_timeout_s=self.options.settings.worker_timeout_s,
        )

    def _status(self, crew: Crew) -> str:
        """One line for ``systemctl status``."""
        policy = crew.current.policy
        text = f"{policy.mode}, {len(policy.rules)} rules, policy {policy.digest[:12]}"
        if self.last_reload is not None and not self.last_reload.is_ok:
            return f"{text}; the last reload was {self.last_reload.outcome}"
        return text

    def _note(self, report: ReloadReport) -> None:
        self.last_reload = report
        self.reloads.append(report)
        announce(report)
        if self._recording is not None:
            self._recording.note(reload_note(report))
        if Trigger.START not in report.triggers:
            self.counters.reloaded(_COUNTED[report.outcome])
        if report.outcome is Outcome.APPLIED:
            self.counters.set_policy(report.digest, report.at)
        if report.is_ok:
            self.counters.set_service_tags(report.service_tags)
            if report.service_tags != self._tags:  # of the same file once a day is enough
                warn_if_stale(report.service_tags, now=report.at)
            self._tags = report.service_tags
        if self.phase is Phase.SERVING and self.crew is not None:
            notify(f"STATUS={self._status(self.crew)}")

    async def _drain(self, crew: Crew, ended: asyncio.Task[None]) -> None:
        """Let open flows end by themselves for ``drain_timeout_s``, counting down."""
        self.phase = Phase.DRAINING
        deadline = time.monotonic() + self.options.settings.drain_timeout_s
        hint = {"hint": "a second signal cuts them at once"}
        while not ended.done():
            left_s = deadline - time.monotonic()
            flows = self._open_flows(crew)
            if left_s <= 0:
                journal().warning("drain timeout, flows are cut", flows=flows)
                crew.cut()
                await ended
                break
            journal().info("draining", flows_left=flows, seconds_left=round(left_s, 1), **hint)
            hint = {}
            await asyncio.wait({ended}, timeout=min(COUNTDOWN_S, left_s))
        journal().info("ended")

    def _open_flows(self, crew: Crew) -> int:
        """By the limits, which are exact; the counters follow the flows by a tick."""
        return sum(self._limits.cells[slot.index] for slot in crew.slots if slot.process)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self._terminate,
            signal.SIGINT: self._terminate,
            signal.SIGHUP: self._hang_up,
            signal.SIGUSR1: self._reopen,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def _terminate(self) -> None:
        if self._stop.is_set() and self.crew is not None:
            journal().warning("second signal, flows are cut", flows=self._open_flows(self.crew))
            self.crew.cut()
        self._stop.set()

    def _hang_up(self) -> None:
        if self._reloader is not None:
            self._reloader.poke(Trigger.SIGNAL)

    def _reopen(self) -> None:
        if self.crew is not None:
            self.crew.reopen_asked.set()
        if self.firewall is not None:
            self.firewall.reopen_log()
        if self._recording is not None:
            self._recording.reopen()


def _with_ports(options: FirewallOptions, opened: OpenListeners) -> FirewallOptions:
    """Where application flows are really taken: a service manager may have chosen the port."""
    kind = ListenerKind(options.intercept)
    ports = [each.endpoint.port for each in opened.listeners if each.kind is kind]
    if not ports:
        return options
    if kind is ListenerKind.REDIRECT:
        return replace(options, redirect_port=ports[0])
    return replace(options, tproxy_port=ports[0])


async def _shut(crew: Crew, opened: OpenListeners) -> None:
    """Let the workers take no new flow; then the last copies of the listeners are ours."""
    await crew.drain()
    opened.close()

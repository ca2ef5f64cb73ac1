"""``Engine``: all flows of one worker.

A flow's way: accept → (pass 1) → sniff → judge → resolve → dial → replay → relay → close, or refuse
at any point. Each step is a module of this package; here they are joined, and nothing else happens.

Invariants:

- Doubt about bytes is a deny with its own reason.
- The name comes from the client, the dialled address from our own resolver, and the decision comes
  before the resolving.
- No task, coroutine, transport or closure a flow; no unbounded buffer, queue or accept.

The outer loop watches ``fileno()`` and calls ``ready()``, and it calls ``tick()`` every ``TICK_S``;
neither waits. All of it runs on one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from egressproxy.observe.record import forget_common
from egressproxy.planes.accept import Acceptor
from egressproxy.planes.dial import Dialler
from egressproxy.planes.explicit import Explicit
from egressproxy.planes.flow import Stage
from egressproxy.planes.flows import Flows
from egressproxy.planes.http_commands import CloseReason
from egressproxy.planes.http_flow import HttpFlows
from egressproxy.planes.idle import IdleSweep
from egressproxy.planes.ledger import Ledger
from egressproxy.planes.parts import Parts
from egressproxy.planes.reactor import Reactor
from egressproxy.planes.refuse import Refuser
from egressproxy.planes.relay import Relay
from egressproxy.planes.revoke import Revoker, SwapReport
from egressproxy.planes.sniff import Sniffer
from egressproxy.planes.survey import Survey
from egressproxy.planes.timers import TICK_S, Timers
from egressproxy.planes.tunnel import Tunnels

if TYPE_CHECKING:
    import socket

    from egressproxy.planes.context import EngineContext, Judge, ListenerKind

__all__ = ["TICK_S", "Engine", "SwapReport"]


class Engine:
    """See the module."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._reactor = reactor = Reactor(context.clock)
        self._timers = timers = Timers(context.settings)
        self._ledger = ledger = Ledger(context)
        self._flows = flows = Flows(context, reactor, ledger)
        parts = Parts(context, reactor, timers, flows, ledger)
        self._relay = relay = Relay(parts)
        self._refuser = refuser = Refuser(parts)
        self._dialler = dialler = Dialler(parts)
        self._revoker = revoker = Revoker(parts)
        tunnels = Tunnels(parts, dialler, relay, refuser, revoker)
        self._https = https = HttpFlows(parts, dialler, relay, refuser)
        revoker.revoke_http = https.revoke
        self._sniffer = sniffer = Sniffer(parts, refuser, tunnels, https)
        explicit = Explicit(parts, refuser, tunnels, sniffer, https)
        self._acceptor = Acceptor(parts, refuser, tunnels, sniffer, explicit)
        self._idle = IdleSweep(parts, relay, https)
        self._drain_ends: float | None = None

    @property
    def active(self) -> int:
        """Open flows."""
        return self._flows.active

    def add_listener(self, sock: socket.socket, kind: ListenerKind) -> None:
        """Accept from a listening socket; the caller keeps it, and closes it after ``close``."""
        self._acceptor.listen(sock, kind)

    def fileno(self) -> int:
        """A descriptor that is readable while ``ready`` has something to do."""
        return self._reactor.fileno()

    def ready(self) -> None:
        """Handle a bounded batch of events."""
        self._reactor.ready()
        if self._revoker.is_busy:
            self._revoker.turn()
            self._reactor.owe(self._revoker.is_busy)
            self._reactor.settle()

    def tick(self, now: float | None = None) -> None:
        """Let time pass: timeouts, paused accepts, the drain's deadline.

        Args:
            now: of the context's clock, which is asked where it is left out.
        """
        reactor = self._reactor
        reactor.now = now = self._context.clock() if now is None else now
        for flow in self._timers.hello.expire(now):
            flow.timer = None
            act = self._https.timed_out if flow.stage is Stage.HTTP else self._sniffer.timed_out
            reactor.call(flow, act, flow)
        self._dialler.tick(now)
        self._refuser.tick(now)
        self._idle.tick(now)
        self._acceptor.tick()
        if self._drain_ends is not None and now >= self._drain_ends:
            self._cut()
        self._flush()
        reactor.settle()

    def swap(self, ruleset: Judge) -> SwapReport:
        """Put a ruleset in force for every flow from now on, and judge the open ones again.

        Returns:
            At once; the report is filled in over the next turns.
        """
        report = self._revoker.swap(ruleset)
        self._dialler.forget()
        forget_common()
        self._reactor.owe(self._revoker.is_busy)
        self._reactor.settle()
        return report

    def drain(self, timeout_s: float | None = None) -> None:
        """Accept no more; flows that are open after ``timeout_s`` (``drain_timeout_s``) are cut."""
        self._acceptor.stop()
        if timeout_s is None:
            timeout_s = self._context.settings.drain_timeout_s
        self._drain_ends = self._context.clock() + timeout_s
        for flow in list(self._flows.open()):
            if flow.stage is Stage.HTTP:
                self._reactor.call(flow, self._https.drain, flow)
        self._reactor.settle()

    def close(self) -> None:
        """Cut every flow and let go of everything but the listeners."""
        self._acceptor.stop()
        self._cut()
        self._flush()
        self._relay.close()
        self._reactor.close()

    def survey(self, most: int) -> Survey:
        """Begin to look at the open flows: ``most`` of the oldest and of the busiest."""
        return Survey(self._context, self._reactor, self._ledger, most=most)

    def _cut(self) -> None:
        for flow in list(self._flows.open()):
            if flow.stage is Stage.HTTP:
                self._reactor.call(flow, self._https.cut, flow)
            self._flows.end(flow, CloseReason.DRAINED, reset=True)

    def _flush(self) -> None:
        self._ledger.flush()
        self._flows.flush()
        self._context.counters.flush()

"""``Flows``: the open flows of one engine, their beginning and their one end.

Every way out of every stage is ``end``: it closes both sockets, cancels what the flow waits for,
gives back what it was counted for, and breaks the reference cycles, so that the garbage collector
has nothing to do.
"""

from __future__ import annotations

from socket import SOCK_STREAM, SocketType
from typing import TYPE_CHECKING, Final

from egressproxy.observe.record import Plane
from egressproxy.planes.flow import Flow, Leg, Stage
from egressproxy.planes.http_commands import CloseReason
from egressproxy.planes.reactor import nothing
from egressproxy.policy.verdict import Action, Pass, Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.planes.context import EngineContext
    from egressproxy.planes.ledger import Ledger
    from egressproxy.planes.limits import Source
    from egressproxy.planes.reactor import Reactor

# An attribute of an enum class costs a call before Python 3.12.
_CLOSED: Final = Stage.CLOSED
_EXPLICIT: Final = Plane.EXPLICIT

_DEFECT: Final = Verdict(Action.ERROR, Reason.INTERNAL_ERROR, decided_by=Pass.NONE)


class Flows:
    """Begins and ends flows."""

    def __init__(self, context: EngineContext, reactor: Reactor, ledger: Ledger) -> None:
        self.active = 0
        self._explicit = 0
        self._told = {Plane.EXPLICIT: 0, Plane.TRANSPARENT: 0}
        self._limits = context.limits
        self._counters = context.counters
        self._reactor = reactor
        self._ledger = ledger
        self._number = 0
        reactor.on_crash = self._crashed

    def begin(
        self,
        sock: SocketType,
        plane: Plane,
        source: Source,
        src_port: int,
    ) -> Flow:
        """A flow for an accepted socket; ``source`` was admitted for it."""
        self._number += 1
        flow = Flow(self._number, plane, source, src_port, self._reactor.now)
        flow.client = Leg(sock, flow, nothing, waits=False)
        self.active += 1
        if plane is _EXPLICIT:
            self._explicit += 1
        return flow

    def end(self, flow: Flow, why: CloseReason, *, reset: bool = False) -> None:
        """Close everything of a flow; with ``reset`` both peers get a RST."""
        if flow.stage is _CLOSED:
            return
        flow.stage = _CLOSED
        if flow.timer is not None:
            flow.timer.cancel(flow)
            flow.timer = None
        try:
            self._conclude(flow, why)
        finally:  # a defect there must not keep a flow open that no event would end any more
            self._let_go(flow, reset=reset)

    def _conclude(self, flow: Flow, why: CloseReason) -> None:
        if flow.work is not None:
            work, flow.work = flow.work, None
            work.abandon()
        self._ledger.account(flow)
        self._ledger.closed(flow, why)

    def _let_go(self, flow: Flow, *, reset: bool) -> None:
        reactor = self._reactor
        reactor.drop(flow.client, reset=reset)
        if flow.upstream is not None:
            reactor.drop(flow.upstream, reset=reset)
            flow.upstream = None
        del flow.client  # the leg points to the flow: no cycle may stay
        self._limits.release(flow.source)
        self._forget(flow)

    def turn_away(self, flow: Flow, verdict: Verdict) -> None:
        """Refuse at the door a flow that no limit has admitted: a RST, and nothing is read."""
        self._ledger.refused(flow, verdict)
        flow.verdict = verdict
        flow.stage = _CLOSED
        self._reactor.drop(flow.client, reset=True)
        del flow.client
        self._forget(flow)

    def flush(self) -> None:
        """Tell the metrics how many flows there are since the last tick."""
        now = {Plane.EXPLICIT: self._explicit, Plane.TRANSPARENT: self.active - self._explicit}
        for plane, flows in now.items():
            if flows != self._told[plane]:
                self._counters.active(plane, flows - self._told[plane])
        self._told = now

    def open(self) -> Iterator[Flow]:
        """Every open flow, in no order; nothing may begin or end meanwhile."""
        for entry in self._reactor.table:
            if isinstance(entry, Leg) and entry is entry.flow.client:
                yield entry.flow

    def _forget(self, flow: Flow) -> None:
        self.active -= 1
        if flow.plane is _EXPLICIT:
            self._explicit -= 1

    def _crashed(self, flow: Flow) -> None:
        if flow.stage is _CLOSED:
            return
        flow.verdict = _DEFECT
        try:
            self._ledger.refused(flow, _DEFECT)
        finally:
            self.end(flow, CloseReason.ERROR, reset=True)


def adopt(fd: int, family: int) -> SocketType:
    """A non-blocking socket object for an accepted descriptor."""
    sock = SocketType(family, SOCK_STREAM, 0, fd)
    sock.setblocking(False)
    return sock

"""Idle flows, found by a clock hand that goes round the table.

A long timeout which every byte re-arms must cost a byte nothing: a flow only notes when it was last
touched, and the hand looks at every flow once a round (a quarter of the shortest timeout, 15 s at
most), so a timeout comes up to a round late. In passing the hand accounts bytes for the metrics,
gives the upstream's socket its keepalive (short flows never pay for that), and takes pipes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.kernel.sockets import keep_alive
from egressproxy.planes.dial import Attempt
from egressproxy.planes.flow import Leg, Stage
from egressproxy.planes.http_commands import CloseReason

if TYPE_CHECKING:
    from egressproxy.planes.flow import Flow
    from egressproxy.planes.http_flow import HttpFlows
    from egressproxy.planes.parts import Parts
    from egressproxy.planes.relay import Relay

_LONGEST_ROUND_S: Final = 15.0


class IdleSweep:
    """The clock hand."""

    def __init__(self, parts: Parts, relay: Relay, https: HttpFlows) -> None:
        settings = parts.context.settings
        self._reactor = parts.reactor
        self._flows = parts.flows
        self._ledger = parts.ledger
        self._relay = relay
        self._https = https
        self._idle_s = settings.idle_timeout_s
        self._half_closed_s = min(settings.half_closed_timeout_s, settings.idle_timeout_s)
        self._keepalive_s = settings.keepalive_s
        self._round_s = min(_LONGEST_ROUND_S, self._half_closed_s / 4, settings.keepalive_s / 4)
        self._hand = 0
        self._last = parts.reactor.now

    def tick(self, now: float) -> None:
        """Look at as many flows as the time since the last tick is worth, one round at most."""
        table = self._reactor.table
        share = min(1.0, (now - self._last) / self._round_s)
        count = int(len(table) * share)
        if not count:
            return
        self._last = now
        hand = self._hand
        for _ in range(count):
            hand = hand + 1 if hand + 1 < len(table) else 0
            entry = table[hand]
            if isinstance(entry, Leg) and entry is entry.flow.client:
                self._reactor.call(entry.flow, self._look, entry.flow)
        self._hand = hand

    def _look(self, flow: Flow) -> None:
        if flow.stage is Stage.RELAY:
            self._look_at_relay(flow)
        elif flow.stage is Stage.HTTP:
            for upstream in self._https.upstreams(flow):
                self._keep_alive(upstream)
            if self._reactor.now - flow.touched >= self._idle_s:
                self._https.idle(flow)
        elif (  # an answer that the client does not read
            flow.stage is Stage.REFUSE
            and flow.client.pending is not None
            and self._reactor.now - flow.touched >= self._half_closed_s
        ):
            self._flows.end(flow, CloseReason.IDLE, reset=True)

    def _look_at_relay(self, flow: Flow) -> None:
        idle_s = self._reactor.now - flow.touched
        if idle_s >= (self._half_closed_s if flow.half_closed else self._idle_s):
            why = CloseReason.HALF_CLOSED if flow.half_closed else CloseReason.IDLE
            self._flows.end(flow, why, reset=True)
            return
        self._ledger.account(flow)
        upstream = flow.upstream
        if isinstance(upstream, Attempt):
            self._keep_alive(upstream)
        if upstream is not None and idle_s >= 1:
            self._relay.rest(upstream)
            self._relay.rest(flow.client)

    def _keep_alive(self, upstream: Attempt) -> None:
        if not upstream.kept_alive:
            upstream.kept_alive = True
            keep_alive(upstream.sock, self._keepalive_s)

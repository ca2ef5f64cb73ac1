"""Tunnels: flows that are judged once, by their first bytes or before, and then relayed untouched.

A TLS flow is judged by the name in its ClientHello, dialled by our own resolution of that name, and
gets exactly the client's bytes replayed. A flow that pass 1 allowed is dialled unsniffed where the
client wanted to go; so is, in audit mode, one that has no name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.observe.record import NameSource
from egressproxy.planes.dial import Dial, Target
from egressproxy.planes.flow import Stage
from egressproxy.planes.http_commands import CloseReason
from egressproxy.planes.reactor import ERR, IN, RDHUP
from egressproxy.planes.refuse import POLICY_DENIES, outcome
from egressproxy.policy.verdict import Flow as Facts
from egressproxy.policy.verdict import Reason
from egressproxy.ports import Protocol
from egressproxy.wire.alert import ACCESS_DENIED
from egressproxy.wire.fault import Fault

if TYPE_CHECKING:
    from egressproxy.planes.dial import Attempt, Dialler
    from egressproxy.planes.flow import Flow, Leg
    from egressproxy.planes.parts import Parts
    from egressproxy.planes.refuse import Refuser
    from egressproxy.planes.relay import Relay
    from egressproxy.planes.revoke import Revoker
    from egressproxy.wire.client_hello import ClientHello

_TLS: Final = Protocol.TLS
_SNI: Final = NameSource.SNI
_DIAL: Final = Stage.DIAL
_new: Final = tuple.__new__  # as in ``ledger``
_REASONS: Final = {fault: Reason(fault.value) for fault in Fault}


class Tunnels:
    """Judges, dials (with ``dialler``) and joins."""

    def __init__(
        self, parts: Parts, dialler: Dialler, relay: Relay, refuser: Refuser, revoker: Revoker
    ) -> None:
        self._context = parts.context
        self._reactor = parts.reactor
        self._flows = parts.flows
        self._ledger = parts.ledger
        self.dialler = dialler
        self._relay = relay
        self._refuser = refuser
        self._revoker = revoker
        self._counters = parts.context.counters
        self._held_handler = self.on_held_event  # one bound method for all legs

    def hello(self, flow: Flow, hello: ClientHello) -> None:
        """A whole ClientHello; its bytes and what came after are ``flow.client.pending``."""
        context = self._context
        asked = flow.facts  # only a CONNECT was judged before it was sniffed
        fields = (
            _TLS,
            flow.source.address,
            flow.dst_port,
            hello.name,
            flow.dst_ip,
            None if asked is None else asked.name,
            hello.has_ech,
            None if hello.fault is None else _REASONS[hello.fault],
        )
        facts = _new(Facts, fields)
        ruleset = flow.ruleset = flow.ruleset or context.ruleset
        # Pass 1 has matched nothing, so both passes say what pass 2 says, and are remembered.
        verdict = self._ledger.judge(flow, facts, ruleset.decide)
        self._counters.hello_size(hello.size)
        flow.alpn, flow.tls_versions = hello.alpn, hello.versions
        flow.facts = facts
        if hello.name is not None:
            flow.name_source = _SNI
        if not verdict.is_allow:
            self._refuser.deny_hello(flow, verdict, hello.size)
            return
        flow.verdict = verdict
        upstream = flow.upstream
        if upstream is None:
            self.dial(flow, Target(hello.name, flow.dst_ip, flow.dst_port))
        elif hello.name is None or facts.connect == hello.name:
            self.join(flow, upstream)
        else:  # ``sni: any-allowed``: another name than CONNECT's has its own addresses
            self._reactor.drop(upstream)
            flow.upstream = None
            self.dial(flow, Target(hello.name, None, flow.dst_port))

    def dial(self, flow: Flow, target: Target) -> None:
        """Dial an allowed flow's target, then join it, unless a reload denies it meanwhile."""
        if flow.ruleset is not self._context.ruleset and not self._revoker.stands(flow):
            return
        verdict = flow.verdict
        if verdict is None:
            return
        self.hold(flow)
        flow.work = dial = self.dialler.prepare(flow, self, target, verdict)
        self.dialler.start(dial)

    def dial_original(self, flow: Flow) -> None:
        """Dial, unsniffed, where the client wanted to go."""
        self.dial(flow, Target(None, flow.dst_ip, flow.dst_port))

    def hold(self, flow: Flow) -> None:
        """Let the client wait: nothing is read, only its leaving is noticed."""
        if flow.timer is not None:
            flow.timer.cancel(flow)
            flow.timer = None
        flow.reader = None
        flow.stage = _DIAL
        client = flow.client
        client.on_event = self._held_handler
        self._reactor.add(client)

    def connected(self, dial: Dial, upstream: Attempt) -> None:
        """The dial's answer."""
        flow = dial.flow
        note_dialled(flow, dial, upstream)
        self.join(flow, upstream)

    def dial_failed(self, dial: Dial, reason: Reason) -> None:
        """The dial's other answer."""
        flow = dial.flow
        flow.match = dial.match
        flow.work = None
        if reason in POLICY_DENIES:
            is_tls = flow.facts is not None and flow.facts.protocol is Protocol.TLS
            message = ACCESS_DENIED if is_tls else b""
            self._refuser.deny(flow, outcome(flow.verdict, reason), message)
        else:
            self._refuser.fail(flow, reason, b"")

    def join(self, flow: Flow, upstream: Leg) -> None:
        """Relay, unless a reload has come between the verdict and now and denies the flow."""
        flow.upstream = upstream
        early = flow.client.pending
        if early is not None:
            flow.client.moved += len(early)
        if flow.ruleset is self._context.ruleset or self._revoker.stands(flow):
            self._relay.start(flow, upstream)

    def on_held_event(self, leg: Leg, events: int) -> None:
        """A socket that waits for the other side."""
        if events & IN:
            leg.readable = True
        if events & RDHUP:
            leg.hung_up = leg.readable = True
        if events & ERR:
            leg.broken = leg.hung_up = leg.readable = True
            if leg is leg.flow.client:
                self._flows.end(leg.flow, CloseReason.CLIENT_RESET)


def note_dialled(flow: Flow, dial: Dial, upstream: Attempt) -> None:
    """Keep what the record says of a dial that succeeded."""
    flow.work = None
    flow.upstream = upstream
    flow.dialled_ip = upstream.address
    flow.match = dial.match

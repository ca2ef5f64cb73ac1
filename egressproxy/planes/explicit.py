"""The explicit plane: CONNECT and absolute-form requests on a proxy port.

A CONNECT is judged by its target's name before anything is resolved:

1. pass 1 with the name, or with the address where the target is one: a ``tcp:P`` rule makes a
   tunnel that is not sniffed;
2. else pass 2, as TLS and, where the port is an HTTP one, as HTTP: the tunnel is dialled, answered
   with 200 and then sniffed: the SNI, or each request's Host, must be the CONNECT name.

Everything that is not CONNECT goes to the HTTP session, which takes absolute-form only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.errors import WireError
from egressproxy.observe.record import NameSource
from egressproxy.planes.dial import Dial, Target
from egressproxy.planes.http_commands import CloseReason
from egressproxy.planes.ledger import FORBIDDEN, is_for_nobody
from egressproxy.planes.reactor import RDHUP
from egressproxy.planes.refuse import POLICY_DENIES, outcome
from egressproxy.planes.sniff import SNIFF_BYTES
from egressproxy.planes.tunnel import note_dialled
from egressproxy.policy.verdict import Action, Pass, Reason, Verdict
from egressproxy.policy.verdict import Flow as Facts
from egressproxy.ports import Protocol
from egressproxy.wire.alert import ACCESS_DENIED
from egressproxy.wire.client_hello import HANDSHAKE_RECORD
from egressproxy.wire.http_refusal import CONNECT_ESTABLISHED, refusal
from egressproxy.wire.http_request import is_connect, parse_connect

if TYPE_CHECKING:
    from egressproxy.planes.dial import Attempt
    from egressproxy.planes.flow import Flow, Leg
    from egressproxy.planes.http_flow import HttpFlows
    from egressproxy.planes.parts import Parts
    from egressproxy.planes.refuse import Refuser
    from egressproxy.planes.sniff import Sniffer
    from egressproxy.planes.tunnel import Tunnels
    from egressproxy.wire.http_request import ConnectHead

_STATUS: Final = {
    Reason.FORBIDDEN_ADDRESS: 403,
    Reason.DESTINATION_MISMATCH: 403,
    Reason.DIAL_TIMEOUT: 504,
}
_NOT_PROXY: Final = Verdict(Action.DENY, Reason.NOT_TLS_OR_HTTP)


class _Connect:
    """A CONNECT between its head and its tunnel; a dial's owner for one flow."""

    __slots__ = ("accept", "dial")

    def __init__(self, accept: bytes, dial: Dial) -> None:
        self.accept = accept
        self.dial = dial

    def abandon(self) -> None:
        """The flow ends."""
        self.dial.abandon()


class Explicit:
    """Reads the first head and judges CONNECT."""

    def __init__(
        self, parts: Parts, refuser: Refuser, tunnels: Tunnels, sniffer: Sniffer, https: HttpFlows
    ) -> None:
        self._context = parts.context
        self._reactor = parts.reactor
        self._flows = parts.flows
        self._refuser = refuser
        self._tunnels = tunnels
        self._dialler = tunnels.dialler
        self._sniffer = sniffer
        self._https = https
        self._limit = parts.context.settings.max_request_head_bytes

    def begin(self, flow: Flow) -> None:
        """A client on a proxy port."""
        flow.client.on_event = self.on_event
        self.on_event(flow.client, 0)

    def on_event(self, leg: Leg, events: int) -> None:
        """Read until the head is whole."""
        flow = leg.flow
        if events & RDHUP:
            leg.hung_up = True  # the edge is told once: who reads on must know
        while True:
            try:
                data = leg.sock.recv(SNIFF_BYTES)
            except BlockingIOError:
                self._sniffer.wait(flow)
                return
            except OSError:
                self._sniffer.vanished(flow, CloseReason.CLIENT_RESET)
                return
            if not data:
                self._sniffer.vanished(flow, CloseReason.CLIENT_CLOSED)
                return
            leg.readable = leg.hung_up or len(data) == SNIFF_BYTES
            if self._take(flow, data):
                return

    def _take(self, flow: Flow, data: bytes) -> bool:
        """Whether the head is whole, or never will be."""
        leg = flow.client
        begun = leg.pending is not None
        whole = data if leg.pending is None else bytes(leg.pending) + data
        if whole[0] == HANDSHAKE_RECORD:
            self._refuser.deny(flow, _NOT_PROXY, ACCESS_DENIED)
            return True
        connect = is_connect(whole)
        if connect is False:
            leg.pending = None
            self._https.begin(flow, whole)
            return True
        leg.pending = whole
        # A head ends with a newline: bytes without one cannot complete it, so byte by byte costs
        # no scan each.
        if connect is None or (begun and b"\n" not in data and len(whole) <= self._limit):
            return False
        try:
            head = parse_connect(whole, self._limit)
        except WireError as error:
            self._malformed(flow, error)
            return True
        if head is not None:
            leg.pending = whole[head.size :] or None
            self._judge(flow, head)
        return head is not None

    def _malformed(self, flow: Flow, error: WireError) -> None:
        reason = Reason(error.code)
        status = getattr(error, "status", 400)
        message = refusal(status, reason.value, detail=str(error))
        self._refuser.deny(flow, Verdict(Action.DENY, reason), message)

    def _judge(self, flow: Flow, head: ConnectHead) -> None:
        authority = head.authority
        context = self._context
        flow.dst_port = authority.port
        flow.dst_ip = authority.address
        flow.name_source = NameSource.CONNECT if authority.name else NameSource.NONE
        flow.ruleset = context.ruleset
        verdict = self._decide(flow, head)
        if not verdict.is_allow:
            self._refuse(flow, head.accept, verdict)
            return
        flow.verdict = verdict
        self._tunnels.hold(flow)
        target = Target(authority.name, authority.address, authority.port)
        dial = self._dialler.prepare(flow, self, target, verdict)
        flow.work = _Connect(head.accept, dial)
        self._dialler.start(dial)

    def _decide(self, flow: Flow, head: ConnectHead) -> Verdict:
        """Also sets ``flow.facts`` to those that decided."""
        ruleset = self._context.ruleset
        now = self._context.wall_clock()
        name, address, port = head.authority
        source = flow.source.address
        flow.facts = facts = Facts(Protocol.TCP, source, port, name, address)
        verdict = ruleset.decide_network(facts, now)
        if verdict is not None:
            return verdict
        fault = Reason.IP_LITERAL if name is None else None
        flow.facts = Facts(Protocol.TLS, source, port, name, address, fault=fault)
        if is_for_nobody(flow.facts, self._context.guard):
            return FORBIDDEN
        verdict = ruleset.decide_application(flow.facts, now)
        if _is_clear(verdict) or (Protocol.HTTP, port) not in ruleset.application_ports():
            return verdict
        http = Facts(Protocol.HTTP, source, port, name, address, fault=fault)
        as_http = ruleset.decide_application(http, now)
        if _is_clear(as_http):
            flow.facts = http
            return as_http
        return verdict

    def connected(self, dial: Dial, upstream: Attempt) -> None:
        """The target answers: 200, then the tunnel."""
        flow = dial.flow
        note_dialled(flow, dial, upstream)
        upstream.on_event = self._tunnels.on_held_event
        try:
            sent = flow.client.sock.send(CONNECT_ESTABLISHED)
        except OSError:
            sent = 0
        if sent < len(CONNECT_ESTABLISHED):  # the first bytes on the socket always fit
            self._flows.end(flow, CloseReason.CLIENT_RESET, reset=True)
            return
        facts, verdict = flow.facts, flow.verdict
        if facts is None or verdict is None:
            return
        if facts.name is None or verdict.decided_by is Pass.NETWORK:
            self._tunnels.join(flow, upstream)
            return
        flow.touched = self._reactor.now
        flow.verdict = None  # what counts is what the tunnel says
        self._sniffer.begin(flow)

    def dial_failed(self, dial: Dial, reason: Reason) -> None:
        """No connection: the client hears it as an answer to its CONNECT."""
        flow = dial.flow
        connect = flow.work
        accept = connect.accept if isinstance(connect, _Connect) else b""
        flow.match = dial.match
        flow.work = None
        verdict = outcome(flow.verdict, reason)
        if reason in POLICY_DENIES:
            self._refuse(flow, accept, verdict)
        else:
            self._refuser.fail(flow, reason, self._message(flow, accept, verdict))

    def _refuse(self, flow: Flow, accept: bytes, verdict: Verdict) -> None:
        self._refuser.deny(flow, verdict, self._message(flow, accept, verdict))

    def _message(self, flow: Flow, accept: bytes, verdict: Verdict) -> bytes:
        facts = flow.facts
        host = flow.dst_ip if facts is None or facts.name is None else facts.name
        error = 502 if verdict.action is Action.ERROR else 403
        return refusal(
            _STATUS.get(verdict.reason, error),
            verdict.reason.value,
            host=f"{host}:{flow.dst_port}",
            rule=verdict.rule_id or "",
            accept=accept,
        )


def _is_clear(verdict: Verdict) -> bool:
    """Allowed by a rule, not by audit's leniency."""
    return verdict.is_allow and not verdict.would_deny

"""Sniffing: read until there is something to judge, for ``hello_timeout_s`` at most.

A first byte of 0x16 is TLS, everything else is held to be HTTP. Bytes are looked at once
(``HelloReader``) and kept exactly, to be replayed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.errors import WireError
from egressproxy.planes.http_commands import CloseReason
from egressproxy.planes.reactor import RDHUP
from egressproxy.policy.verdict import Action, Reason, Verdict
from egressproxy.policy.verdict import Flow as Facts
from egressproxy.ports import Protocol
from egressproxy.wire.alert import ACCESS_DENIED
from egressproxy.wire.client_hello import HANDSHAKE_RECORD, HelloReader, parse_client_hello

if TYPE_CHECKING:
    from egressproxy.planes.flow import Flow, Leg
    from egressproxy.planes.http_flow import HttpFlows
    from egressproxy.planes.parts import Parts
    from egressproxy.planes.refuse import Refuser
    from egressproxy.planes.tunnel import Tunnels
    from egressproxy.wire.client_hello import ClientHello

SNIFF_BYTES: Final = 16384
_SILENT: Final = Verdict(Action.DENY, Reason.CLOSED_BEFORE_HELLO)
_TOO_SLOW: Final = Verdict(Action.DENY, Reason.HELLO_TIMEOUT)


class Sniffer:
    """Reads first bytes and hands the flow on: TLS to ``Tunnels``, HTTP to ``HttpFlows``."""

    def __init__(self, parts: Parts, refuser: Refuser, tunnels: Tunnels, https: HttpFlows) -> None:
        self._reactor = parts.reactor
        self._timers = parts.timers
        self._flows = parts.flows
        self._ledger = parts.ledger
        self._refuser = refuser
        self._tunnels = tunnels
        self._https = https
        self._handler = self.on_event  # one bound method for all legs
        self._limit = parts.context.settings.max_hello_bytes

    def begin(self, flow: Flow) -> None:
        """Sniff from the first byte; what a CONNECT head was followed by is looked at first."""
        leg = flow.client
        leg.on_event = self._handler
        if leg.pending is not None:
            early, leg.pending = bytes(leg.pending), None
            if self._take(flow, early):
                return
        self.on_event(leg, 0)

    def on_event(self, leg: Leg, events: int) -> None:
        """Read what there is."""
        flow = leg.flow
        if events & RDHUP:
            leg.hung_up = True  # the edge is told once: who reads on must know
        while True:
            try:
                data = leg.sock.recv(SNIFF_BYTES)
            except BlockingIOError:
                self.wait(flow)
                return
            except OSError:
                self.vanished(flow, CloseReason.CLIENT_RESET)
                return
            if not data:
                self.vanished(flow, CloseReason.CLIENT_CLOSED)
                return
            leg.readable = leg.hung_up or len(data) == SNIFF_BYTES
            if self._take(flow, data):
                return

    def wait(self, flow: Flow) -> None:
        """Come back when there is more, or when the time is over."""
        if flow.timer is None:
            flow.timer = self._timers.hello
            flow.timer.arm(flow, flow.touched)
        self._reactor.add(flow.client)

    def vanished(self, flow: Flow, why: CloseReason) -> None:
        """The client left before there was anything to judge."""
        quiet = flow.reader is None and flow.client.pending is None
        flow.verdict = _SILENT
        self._ledger.vanished(flow, _SILENT, quiet=quiet)
        self._flows.end(flow, why)

    def timed_out(self, flow: Flow) -> None:
        """``hello_timeout_s`` is over."""
        self._refuser.deny(flow, _TOO_SLOW, b"" if flow.reader is None else ACCESS_DENIED)

    def _take(self, flow: Flow, data: bytes) -> bool:
        """Whether sniffing is over."""
        reader = flow.reader
        if reader is None and data[0] != HANDSHAKE_RECORD:
            self._https.begin(flow, data)
            return True
        try:
            hello = self._parse(flow, reader, data)
        except WireError as error:
            self._never_a_hello(flow, Reason(error.code))
            return True
        if hello is None:
            return False
        if reader is not None or hello.records > 1:
            flow.hello_split = hello.fits_one_segment
        self._tunnels.hello(flow, hello)
        return True

    def _never_a_hello(self, flow: Flow, reason: Reason) -> None:
        asked = None if flow.facts is None else flow.facts.name
        flow.facts = Facts(
            Protocol.TLS,
            flow.source.address,
            flow.dst_port,
            dst=flow.dst_ip,
            connect=asked,
            fault=reason,
        )
        self._refuser.deny(flow, Verdict(Action.DENY, reason), ACCESS_DENIED)

    def _parse(self, flow: Flow, reader: HelloReader | None, data: bytes) -> ClientHello | None:
        if reader is None:
            hello = parse_client_hello(data, self._limit)
            if hello is not None:
                flow.client.pending = data
                return hello
            reader = flow.reader = HelloReader(self._limit)
        hello = reader.feed(data)
        if hello is not None:
            flow.client.pending = bytes(reader.raw)
        return hello

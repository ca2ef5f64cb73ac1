"""Refusing: tell the client, in its protocol, so that it hears it.

A socket that is closed with unread bytes sends a RST, and the RST destroys the refusal before the
client has read it. So: send, ``shutdown(SHUT_WR)``, then read and drop what the client is still
sending, for a bounded time and number of bytes, then close. A client that has said its ClientHello
and no more waits for an answer and sends nothing: there the kernel can do the rest, and the socket
is closed at once.
"""

from __future__ import annotations

from socket import MSG_MORE, SHUT_WR
from typing import TYPE_CHECKING, Final

from egressproxy.planes.flow import Stage
from egressproxy.planes.http_commands import CloseReason
from egressproxy.planes.reactor import ERR, OUT
from egressproxy.policy.rules import Refusal
from egressproxy.policy.verdict import Action, Reason, Verdict
from egressproxy.wire.alert import ACCESS_DENIED

if TYPE_CHECKING:
    from egressproxy.planes.flow import Flow, Leg
    from egressproxy.planes.parts import Parts

# An attribute of an enum class costs a call before Python 3.12.
_ALERT: Final = Refusal.ALERT
_REFUSED: Final = CloseReason.REFUSED

POLICY_DENIES: Final = frozenset({Reason.FORBIDDEN_ADDRESS, Reason.DESTINATION_MISMATCH})
"""What a dial may end in that is a deny and no error."""


class _Farewell:
    """How many bytes a refused client may still send."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def abandon(self) -> None:
        """Nothing is held."""


class Refuser:
    """Ends flows that are denied, and flows that were allowed and cannot be served."""

    def __init__(self, parts: Parts) -> None:
        self._context = parts.context
        self._reactor = parts.reactor
        self._timers = parts.timers
        self._flows = parts.flows
        self._ledger = parts.ledger
        self._drain_bytes = parts.context.settings.refusal_drain_bytes

    def deny(self, flow: Flow, verdict: Verdict, message: bytes) -> None:
        """Record a deny and carry out the policy's ``refusal``.

        Args:
            flow: in any stage.
            verdict: with ``Action.DENY``.
            message: what ``refusal: alert`` says; empty where the protocol is unknown: a RST.
        """
        flow.verdict = verdict
        self._ledger.refused(flow, verdict)
        self.carry_out(flow, message)

    def carry_out(self, flow: Flow, message: bytes) -> None:
        """The policy's ``refusal``, for a deny that is recorded already."""
        match (flow.ruleset or self._context.ruleset).refusal:
            case Refusal.DROP:
                self._silence(flow)
            case Refusal.ALERT if message:
                self.say(flow, message)
            case _:
                self._flows.end(flow, CloseReason.REFUSED, reset=True)

    def fail(self, flow: Flow, reason: Reason, message: bytes) -> None:
        """Record an error of an allowed flow; without a message the client gets a RST."""
        verdict = outcome(flow.verdict, reason)
        flow.verdict = verdict
        self._ledger.refused(flow, verdict)
        if message:
            self.say(flow, message)
        else:
            self._flows.end(flow, CloseReason.ERROR, reset=True)

    def deny_hello(self, flow: Flow, verdict: Verdict, size: int) -> None:
        """Deny by a ClientHello of ``size`` octets, which the client's ``pending`` begins with."""
        flow.verdict = verdict
        self._ledger.refused(flow, verdict)
        leg = flow.client
        said = leg.pending
        if (
            said is None
            or len(said) != size
            or leg.readable
            or (flow.ruleset or self._context.ruleset).refusal is not _ALERT
            or not _sent(leg, ACCESS_DENIED)
        ):
            self.carry_out(flow, ACCESS_DENIED)
        else:
            self._flows.end(flow, _REFUSED)

    def say(self, flow: Flow, message: bytes) -> None:
        """Send, then close as this module's head says; the flow is recorded already."""
        leg = flow.client
        self._leave(flow)
        leg.pending = message
        leg.on_event = self._on_event
        flow.work = _Farewell(self._drain_bytes)
        flow.touched = self._reactor.now
        if not self._send(leg):
            return
        if leg.watched:
            self._read(leg)  # its edge may have been told already
        else:
            self._reactor.add(leg)  # which tells what there is to read

    def tick(self, now: float) -> None:
        """Close those whose time is over."""
        for flow in self._timers.farewell.expire(now):
            self._flows.end(flow, CloseReason.REFUSED)
        for flow in self._timers.silence.expire(now):
            self._flows.end(flow, CloseReason.REFUSED, reset=True)

    def _silence(self, flow: Flow) -> None:
        self._leave(flow)
        flow.client.on_event = self._on_silent_event
        flow.timer = self._timers.silence
        flow.timer.arm(flow, self._reactor.now)
        self._reactor.add(flow.client)

    def _leave(self, flow: Flow) -> None:
        """Out of whatever stage it was in."""
        flow.stage = Stage.REFUSE
        flow.reader = None
        if flow.timer is not None:
            flow.timer.cancel(flow)
            flow.timer = None
        if flow.work is not None:
            flow.work.abandon()
            flow.work = None
        if flow.upstream is not None:
            self._reactor.drop(flow.upstream)
            flow.upstream = None

    def _on_silent_event(self, leg: Leg, events: int) -> None:
        if events & ERR:
            self._flows.end(leg.flow, CloseReason.REFUSED)

    def _on_event(self, leg: Leg, events: int) -> None:
        if events & OUT and leg.pending is not None and not self._send(leg):
            return
        self._read(leg)

    def _send(self, leg: Leg) -> bool:
        """False where the flow has ended. The farewell's time counts from the last byte sent."""
        message, flow = leg.pending, leg.flow
        if message is None:
            return True
        try:
            sent = leg.sock.send(message) if message else 0
            if sent == len(message):
                leg.pending = None
                leg.sock.shutdown(SHUT_WR)
                flow.timer = self._timers.farewell
                flow.timer.arm(flow, self._reactor.now)
                return True
        except BlockingIOError:
            sent = 0
        except OSError:
            self._flows.end(flow, CloseReason.REFUSED)
            return False
        leg.pending = memoryview(message)[sent:]
        flow.touched = self._reactor.now
        self._reactor.add(leg)
        self._reactor.want_out(leg)
        return True

    def _read(self, leg: Leg) -> None:
        flow = leg.flow
        farewell = flow.work
        if not isinstance(farewell, _Farewell):
            return
        receive, buffer = leg.sock.recv_into, self._reactor.buffer
        while farewell.left > 0:
            try:
                count = receive(buffer)
            except BlockingIOError:
                return
            except OSError:
                break
            if not count:
                if leg.pending is not None:
                    return  # half-closed: it still listens
                break
            farewell.left -= count
        self._flows.end(flow, CloseReason.REFUSED)


def _sent(leg: Leg, message: bytes) -> bool:
    """Whether a socket took a last message, which leaves with the FIN in one packet.

    The empty buffer takes a few octets whole or not at all.
    """
    try:
        return leg.sock.send(message, MSG_MORE) > 0
    except OSError:
        return False


def outcome(verdict: Verdict | None, reason: Reason) -> Verdict:
    """What an allow became when it was dialled: a deny of the address, or an error."""
    action = Action.DENY if reason in POLICY_DENIES else Action.ERROR
    if verdict is None:
        return Verdict(action, reason)
    return Verdict(action, reason, verdict.rule_id, verdict.decided_by)

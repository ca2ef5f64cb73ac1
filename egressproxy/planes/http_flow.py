"""HTTP flows: carries out what an ``HttpSession`` wants on a client's socket and its upstreams'.

The session decides, this module moves: it reads a socket only while the session wants its bytes and
nothing waits in the other direction, keeps what a socket did not take, and turns dials and events
into the session's calls. Commands are queued and carried out one after the other, since carrying
one out (a dial that fails at once) may bring the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from egressproxy.observe.record import NameSource
from egressproxy.planes import http_commands as http
from egressproxy.planes.dial import Attempt, Dial, Target
from egressproxy.planes.flow import Leg, Stage
from egressproxy.planes.http_commands import CloseReason
from egressproxy.planes.http_work import HttpWork
from egressproxy.planes.reactor import ERR, IN, OUT, RDHUP
from egressproxy.policy.rules import OnReload
from egressproxy.policy.verdict import Action, Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from egressproxy.planes.dial import Dialler
    from egressproxy.planes.flow import Flow
    from egressproxy.planes.parts import Parts
    from egressproxy.planes.refuse import Refuser
    from egressproxy.planes.relay import Relay

_ROUNDS: Final = 16
_TURN_BYTES: Final = 16384
"""What is read of one flow in one turn: as chunks of one byte, 20 ms of work."""


class HttpFlows:
    """Every flow in stage ``HTTP``."""

    def __init__(self, parts: Parts, dialler: Dialler, relay: Relay, refuser: Refuser) -> None:
        self._context = parts.context
        self._reactor = parts.reactor
        self._timers = parts.timers
        self._flows = parts.flows
        self._ledger = parts.ledger
        self._dialler = dialler
        self._relay = relay
        self._refuser = refuser

    def begin(self, flow: Flow, data: bytes) -> None:
        """A client whose first bytes are not TLS."""
        flow.stage = Stage.HTTP
        flow.work = work = HttpWork(self, flow, self._context, self._ledger)
        flow.client.on_event = self._on_client_event
        self._reactor.add(flow.client)
        self._run(work, work.session.receive_client(data))
        self._serve(work)

    def timed_out(self, flow: Flow) -> None:
        """The hello timeout, which also bounds later heads that have begun."""
        work = flow.work
        if isinstance(work, HttpWork):
            flow.timer = None
            self._run(work, work.session.timed_out())
            self._serve(work)

    def idle(self, flow: Flow) -> None:
        """Nothing moved for ``idle_timeout_s``."""
        self._abort(flow, CloseReason.IDLE)

    def upstreams(self, flow: Flow) -> Iterable[Attempt]:
        """The connected upstreams of a flow."""
        return flow.work.legs.values() if isinstance(flow.work, HttpWork) else ()

    def drain(self, flow: Flow) -> None:
        """Close after the exchange under way."""
        work = flow.work
        if isinstance(work, HttpWork):
            self._run(work, work.session.drain())
            self._serve(work)

    def cut(self, flow: Flow) -> None:
        """The drain's time is over."""
        self._abort(flow, CloseReason.DRAINED)

    def revoke(self, flow: Flow) -> bool:
        """Judge the request under way again; whether it may go on."""
        work = flow.work
        if not isinstance(work, HttpWork) or (authority := work.session.active) is None:
            return True
        facts = work.judge.facts(authority, None)
        ruleset = self._context.ruleset
        decide = ruleset.decide if flow.dst_ip is None else ruleset.decide_name
        verdict = decide(facts, self._context.wall_clock())
        if verdict.is_allow or ruleset.on_reload is OnReload.KEEP:
            return True
        flow.facts, flow.ruleset = facts, ruleset
        revoked = Verdict(Action.DENY, Reason.REVOKED, verdict.rule_id, verdict.decided_by)
        self._ledger.refused(flow, revoked)
        self._abort(flow, CloseReason.REVOKED)
        return False

    def abandon(self, work: HttpWork) -> None:
        """See ``HttpWork.abandon``."""
        for dial in work.dials.values():
            dial.abandon()
        for leg in work.legs.values():
            self._reactor.drop(leg)
        work.dials.clear()
        work.legs.clear()
        for command in [*work.commands, *work.session.abort(CloseReason.ERROR)]:
            if isinstance(command, http.Finished):
                self._ledger.http_closed(work.flow, command.record)
        work.commands.clear()

    # Events.

    def _on_client_event(self, leg: Leg, events: int) -> None:
        work = leg.flow.work
        if not isinstance(work, HttpWork):
            return
        if events & ERR:
            self._run(work, work.session.client_lost())
            return
        if events & (IN | RDHUP):
            leg.readable = True
        if events & RDHUP:
            leg.hung_up = True  # the edge is told once: the relay after an upgrade must know
        self._serve(work)

    def _on_upstream_event(self, leg: Attempt, events: int) -> None:
        work = leg.flow.work
        if not isinstance(work, HttpWork):
            return
        if events & ~OUT:
            leg.readable = True
        if events & (ERR | RDHUP):
            leg.hung_up = True
        self._serve(work)

    # Dialled.

    def connected(self, dial: Dial, upstream: Attempt) -> None:
        """A dial of the session's has its socket."""
        work = dial.flow.work
        if isinstance(work, HttpWork):
            del work.dials[dial.key]
            self._adopt(work, dial.key, upstream, dial.match)
            self._serve(work)

    def dial_failed(self, dial: Dial, reason: Reason) -> None:
        """A dial of the session's has none."""
        work = dial.flow.work
        if isinstance(work, HttpWork):
            work.dials.pop(dial.key, None)
            self._run(work, work.session.upstream_failed(dial.key, reason))
            self._serve(work)

    def _adopt(self, work: HttpWork, number: int, upstream: Attempt, match: str) -> None:
        upstream.key = number
        upstream.on_event = self._on_upstream_event
        work.legs[number] = upstream
        work.to_upstream[number] = bytearray()
        connected = work.session.upstream_connected(
            number, dialled_ip=upstream.address, destination_match=match
        )
        self._run(work, connected)

    # Moving bytes.

    def _serve(self, work: HttpWork) -> None:
        """Write and read until nothing more can be done, or the turn is over."""
        flow = work.flow
        if work.is_running or flow.work is not work or self._reactor.is_owed(flow.client):
            return  # a dial that was answered at once, or an event; whoever runs goes on
        flow.touched = self._reactor.now
        work.allowance = _TURN_BYTES
        for _ in range(_ROUNDS):
            if flow.stage is not Stage.HTTP or not self._write(work):
                return
            if work.allowance <= 0:  # to recv_into, 0 would mean the whole buffer
                break
            if not (self._read_upstream(work) or self._read_client(work)):
                self._time(work)
                return
        if flow.stage is Stage.HTTP:
            self._reactor.again(flow.client, self._turn)

    def _turn(self, leg: Leg) -> None:
        if isinstance(leg.flow.work, HttpWork):
            self._serve(leg.flow.work)

    def _time(self, work: HttpWork) -> None:
        """The hello timeout runs while a head is awaited, from its first byte or the accept on."""
        flow = work.flow
        if flow.stage is not Stage.HTTP:
            return
        if work.session.awaits_head:
            if flow.timer is None:
                flow.timer = self._timers.hello
                flow.timer.arm(flow, self._reactor.now)
        elif flow.timer is not None:
            flow.timer.cancel(flow)
            flow.timer = None

    def _write(self, work: HttpWork) -> bool:
        """Whether the flow still is the session's."""
        client = work.flow.client
        if work.to_client and not self._send(client, work.to_client):
            self._run(work, work.session.client_lost())
        for number, leg in list(work.legs.items()):
            unsent = work.to_upstream[number]
            if unsent and not self._send(leg, unsent):
                self._run(work, work.session.upstream_lost(number))
        return work.flow.stage is Stage.HTTP

    def _send(self, leg: Leg, unsent: bytearray) -> bool:
        try:
            sent = leg.sock.send(unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        del unsent[:sent]
        if unsent:
            self._reactor.want_out(leg)
        return True

    def _read_client(self, work: HttpWork) -> bool:
        leg = work.flow.client
        session = work.session
        if not leg.readable or not session.wants_client_data() or any(work.to_upstream.values()):
            return False
        try:
            count = leg.sock.recv_into(self._reactor.buffer, work.allowance)
        except BlockingIOError:
            leg.readable = False
            return False
        except OSError:
            self._run(work, session.client_lost())
            return True
        work.allowance -= count
        if count:
            self._run(work, session.receive_client(self._reactor.view[:count]))
        else:
            leg.readable = False
            self._run(work, session.client_eof())
        return True

    def _read_upstream(self, work: HttpWork) -> bool:
        if work.to_client or not work.session.wants_upstream_data():
            return False
        progress = False
        for leg in list(work.legs.values()):
            progress = self._read_leg(work, leg) or progress
        return progress

    def _read_leg(self, work: HttpWork, leg: Attempt) -> bool:
        if not leg.readable or leg.key not in work.legs:
            return False
        session = work.session
        try:
            count = leg.sock.recv_into(self._reactor.buffer, work.allowance)
        except BlockingIOError:
            leg.readable = False
            return False
        except OSError:
            leg.readable = False
            self._run(work, session.upstream_lost(leg.key))
            return True
        work.allowance -= count
        if count:
            self._run(work, session.receive_upstream(leg.key, self._reactor.view[:count]))
        else:
            leg.readable = False
            self._run(work, session.upstream_eof(leg.key))
        return True

    # Commands.

    def _abort(self, flow: Flow, why: CloseReason) -> None:
        if isinstance(flow.work, HttpWork):
            self._run(flow.work, flow.work.session.abort(why))

    def _run(self, work: HttpWork, commands: list[http.Command]) -> None:
        queue = work.commands
        queue.extend(commands)
        if work.is_running:
            return
        work.is_running = True
        try:
            while queue:
                self._carry_out(work, queue.popleft())
        finally:
            work.is_running = False

    def _carry_out(self, work: HttpWork, command: http.Command) -> None:
        flow = work.flow
        match command:
            case http.SendClient(data):
                work.to_client += data
            case http.SendUpstream(number, data):
                work.to_upstream[number] += data
            case http.Dial():
                self._dial(work, command)
            case http.CloseUpstream(number, reset):
                self._close_upstream(work, number, reset=reset)
            case http.Opened(record):
                self._ledger.http_opened(flow, record)
            case http.Finished(record):
                self._ledger.http_closed(flow, record)
            case _:
                self._leave(work, command)

    def _leave(
        self, work: HttpWork, command: http.RefuseClient | http.CloseClient | http.Tunnel
    ) -> None:
        """A command after which the session is over."""
        flow = work.flow
        self._finish_records(work)
        match command:
            case http.RefuseClient(data):
                self._refuser.carry_out(flow, bytes(work.to_client + data))
            case http.CloseClient(reset) if reset:
                self._flows.end(flow, CloseReason.DONE, reset=True)
            case http.CloseClient():
                self._refuser.say(flow, bytes(work.to_client))
            case http.Tunnel(number, record):
                self._become_tunnel(work, number, record)
            case _:
                assert_never(command)

    def _finish_records(self, work: HttpWork) -> None:
        """The session is over; records that stand behind its last command in the queue."""
        while work.commands:
            command = work.commands.popleft()
            if isinstance(command, http.Finished):
                self._ledger.http_closed(work.flow, command.record)

    def _dial(self, work: HttpWork, command: http.Dial) -> None:
        flow, authority = work.flow, command.authority
        name = None if authority is None else authority.name
        spare = flow.upstream
        if isinstance(spare, Attempt):  # CONNECT has dialled already
            flow.upstream = None
            if name == work.judge.connect or authority is None:
                self._adopt(work, command.upstream, spare, flow.match)
                return
            self._reactor.drop(spare)
        address = flow.dst_ip
        port = flow.dst_port
        if authority is not None:
            address = authority.address if port == 0 else address
            port = authority.port
        target = Target(name, address, port)
        dial = self._dialler.prepare(flow, self, target, command.verdict)
        dial.key = command.upstream
        work.dials[dial.key] = dial
        self._dialler.start(dial)

    def _close_upstream(self, work: HttpWork, number: int, *, reset: bool) -> None:
        dial = work.dials.pop(number, None)
        if dial is not None:
            dial.abandon()
        leg = work.legs.pop(number, None)
        if leg is not None:
            self._reactor.drop(leg, reset=reset)
        work.to_upstream.pop(number, None)

    def _become_tunnel(self, work: HttpWork, number: int, record: http.NameRecord) -> None:
        flow, client = work.flow, work.flow.client
        upstream = work.legs.pop(number)
        flow.work = None
        self.abandon(work)
        if flow.timer is not None:
            flow.timer.cancel(flow)
            flow.timer = None
        flow.verdict = record.verdict
        flow.facts = work.judge.facts(record.authority, None)
        flow.name_source = NameSource.NONE if record.authority is None else NameSource.HOST
        flow.requests = record.requests
        flow.dialled_ip, flow.match = upstream.address, record.destination_match or "unknown"
        flow.up, flow.down = record.bytes_up, record.bytes_down
        # What each side has not taken yet counts as read from the other side.
        client.pending = bytes(work.to_upstream[number]) or None
        upstream.pending = bytes(work.to_client) or None
        client.readable = upstream.readable = True
        self._ledger.count(flow, record.verdict)
        self._relay.start(flow, upstream)

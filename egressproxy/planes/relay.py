"""The relay: bytes between two connected sockets, untouched, both ways.

Small moves are ``recv``, then ``send``; a read that is as large as it may be (64 KiB) makes the
direction a bulk one, which ``splice(2)`` moves through a pooled pipe. Its rules:

- Backpressure by construction: a direction is read only while nothing of it waits. What the peer
  did not take stays in ``pending`` (at most one read) or in the pipe.
- A FIN is passed on after the bytes before it, and the other direction goes on (half-close).
- A RST is passed on as a RST, after the bytes that came before it.
- A turn is bounded, so that one bulk flow cannot starve the others.
- What a batch of events reads in small moves is sent, and its FINs passed on, when all of the batch
  is read (``Reactor.afterwards``).
"""

from __future__ import annotations

import os
from socket import SHUT_WR
from typing import TYPE_CHECKING, Final

from egressproxy.kernel.splice import PIPE_BYTES, SPLICE_FLAGS
from egressproxy.planes.flow import Stage
from egressproxy.planes.http_commands import CloseReason
from egressproxy.planes.pace import Pace
from egressproxy.planes.reactor import BUFFER_BYTES, ERR, HUP, IN, OUT, PRI, RDHUP

if TYPE_CHECKING:
    from egressproxy.kernel.splice import Pipe
    from egressproxy.planes.flow import Flow, Leg
    from egressproxy.planes.parts import Parts

# An attribute of an enum class costs a call before Python 3.12.
_RELAY: Final = Stage.RELAY
_CLIENT_CLOSED: Final = CloseReason.CLIENT_CLOSED
_UPSTREAM_CLOSED: Final = CloseReason.UPSTREAM_CLOSED
_BULK_ROUNDS: Final = 8
_COPY_ROUNDS: Final = 16
_TROUBLE: Final = RDHUP | PRI | ERR | HUP
_READABLE: Final = _TROUBLE | IN

_splice = os.splice


class Relay:
    """Moves the bytes of every flow in stage ``RELAY``."""

    def __init__(self, parts: Parts) -> None:
        self._reactor = parts.reactor
        self._flows = parts.flows
        self._ledger = parts.ledger
        self._counters = parts.context.counters
        self._pace = Pace(parts.reactor, self.pump)
        # One bound method for all legs: each look-up of a method makes another object.
        self._handler = self.on_event
        self._sender = self._send
        self._shutter = self._shut
        self._first_handler = self._on_first_event

    def start(self, flow: Flow, upstream: Leg) -> None:
        """Join the client to its upstream; each leg's ``pending`` goes out first."""
        client = flow.client
        flow.stage = _RELAY
        flow.upstream = upstream
        client.peer, upstream.peer = upstream, client
        client.on_event = self._handler
        upstream.on_event = self._first_handler
        self._ledger.opened(flow)
        # A reset that was noticed while dialling: ``pump`` reads what came before it.
        client.readable = client.readable or client.hung_up or client.broken
        if client.pending is not None and not client.readable:
            self._reactor.afterwards(client, self._sender)
        else:
            self.pump(client)
        if flow.stage is _RELAY and (
            upstream.readable or upstream.hung_up or upstream.pending is not None
        ):
            upstream.readable = True
            self._first_word(upstream)
            self.pump(upstream)  # not on_event, which waits for EPOLLOUT where bytes are pending

    def on_event(self, leg: Leg, events: int) -> None:
        """What epoll says of a leg."""
        if events & _TROUBLE:
            leg.hung_up = True  # a short read does not mean that the socket is empty
            if events & ERR:
                leg.broken = True
        peer = leg.peer
        if peer is None:
            return
        if events & OUT and (peer.pending is not None or peer.in_pipe):
            self.pump(peer)
            peer = leg.peer  # None where that has ended the flow
        if events & _READABLE:
            leg.readable = True
            if leg.pending is not None or leg.in_pipe:
                return
            if leg.pipe is None and peer is not None and not leg.ended:
                leg.flow.touched = self._reactor.now
                self._copy(leg, peer)
            else:
                self.pump(leg)

    def pump(self, src: Leg) -> None:
        """Move what ``src`` has to its peer, until one of both can no more or the turn is over."""
        dst = src.peer
        if dst is None:
            return
        src.flow.touched = self._reactor.now
        if src.pending is not None and not self._flush(src, dst):
            return
        if src.pipe is not None:
            if src.in_pipe or src.readable:
                self._splice(src, dst, src.pipe)
        elif src.readable and not src.ended:
            self._copy(src, dst)

    def _send(self, src: Leg) -> None:
        """Send what a batch has read, unless it went out with something else."""
        if src.pending is not None:
            self.pump(src)

    def _copy(self, src: Leg, dst: Leg) -> None:  # noqa: C901 - every small move: calls cost
        for _ in range(_COPY_ROUNDS):
            try:
                data = src.sock.recv(BUFFER_BYTES)
            except BlockingIOError:
                src.readable = False
                return
            except OSError:
                self._reset(src)
                return
            if not data:
                self._finish(src, dst)
                return
            count = len(data)
            src.moved += count
            if count < BUFFER_BYTES and not src.hung_up:
                src.readable = False
                src.pending = data
                self._reactor.afterwards(src, self._sender)
                return
            try:
                sent = dst.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._lost(dst)
                return
            if sent < count:
                src.pending = memoryview(data)[sent:]
                self._reactor.want_out(dst)
                return
            if count == BUFFER_BYTES:
                src.pipe = self._reactor.pipes.take()
                if src.pipe is not None:  # else all are lent: copying is slower and as right
                    self._splice(src, dst, src.pipe)
                    return
            elif not src.hung_up:
                src.readable = False
                return
        self._reactor.again(src, self.pump)

    def _splice(self, src: Leg, dst: Leg, pipe: Pipe) -> None:
        before = src.moved
        for _ in range(_BULK_ROUNDS):
            if not src.in_pipe and not self._fill(src, dst, pipe):
                self._slow_down(src, src.moved - before)
                return
            try:
                src.in_pipe -= _splice(pipe.read, dst.fd, src.in_pipe, flags=SPLICE_FLAGS)
            except BlockingIOError:
                self._reactor.want_out(dst)
                return
            except OSError:
                self._lost(dst)
                return
        self._reactor.again(src, self.pump)

    def _slow_down(self, src: Leg, moved: int) -> None:
        """What was to be had is moved: was it enough for a clock, or is it small moves again."""
        if moved < BUFFER_BYTES:
            self.rest(src)
        elif not src.ended:
            self._pace.keep(src)

    def _fill(self, src: Leg, dst: Leg, pipe: Pipe) -> bool:
        """Whether bytes went into the empty pipe."""
        try:
            count = _splice(src.fd, pipe.write, PIPE_BYTES, flags=SPLICE_FLAGS)
        except BlockingIOError:
            src.readable = False
            return False
        except OSError:
            self._reset(src)
            return False
        if not count:
            self._finish(src, dst)
            return False
        src.in_pipe = count
        src.moved += count
        return True

    def close(self) -> None:
        """Let go of the clock; the flows are ended before."""
        self._pace.close()

    def rest(self, leg: Leg) -> None:
        """Give an empty pipe back: what comes now is small again."""
        self._pace.leave(leg)
        if leg.pipe is not None and not leg.in_pipe:
            self._reactor.pipes.give_back(leg.pipe)
            leg.pipe = None

    def _flush(self, src: Leg, dst: Leg) -> bool:
        pending = src.pending
        if pending is None:
            return True
        try:
            sent = dst.sock.send(pending)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost(dst)
            return False
        if sent < len(pending):
            src.pending = memoryview(pending)[sent:]
            self._reactor.want_out(dst)
            return False
        src.pending = None
        return True

    def _finish(self, src: Leg, dst: Leg) -> None:
        """Pass the FIN on; everything before it has been sent."""
        flow = src.flow
        if src.broken:
            self._reset(src)
            return
        src.ended = True
        src.readable = False
        if src.pipe is not None:
            self.rest(src)
        if dst.ended:
            is_client = dst is flow.client  # who closed first
            self._flows.end(flow, _CLIENT_CLOSED if is_client else _UPSTREAM_CLOSED)
            return
        flow.half_closed = True
        self._reactor.afterwards(dst, self._shutter)

    def _shut(self, dst: Leg) -> None:
        if dst.peer is None:
            return  # the flow has ended: closing sends the FIN
        try:
            dst.sock.shutdown(SHUT_WR)
        except OSError:
            self._lost(dst)

    def _lost(self, leg: Leg) -> None:
        """A send failed: ``leg`` is reset. What it sent before that is still its peer's."""
        leg.broken = leg.hung_up = leg.readable = True
        peer = leg.peer
        if peer is None:
            return
        # Nothing of the other direction can be delivered any more.
        peer.pending = None
        peer.ended = True
        peer.readable = False
        if peer.pipe is not None:
            self._reactor.pipes.give_back(peer.pipe, empty=not peer.in_pipe)
            peer.pipe, peer.in_pipe = None, 0
        if leg.ended:
            self._reset(leg)
        elif leg.pending is None and not leg.in_pipe:
            self._reactor.again(leg, self.pump)

    def _reset(self, src: Leg) -> None:
        is_client = src is src.flow.client
        why = CloseReason.CLIENT_RESET if is_client else CloseReason.UPSTREAM_RESET
        self._flows.end(src.flow, why, reset=True)

    def _on_first_event(self, upstream: Leg, events: int) -> None:
        if events & IN:
            self._first_word(upstream)
        self.on_event(upstream, events)

    def _first_word(self, upstream: Leg) -> None:
        """The upstream's first word ends the wait that a user feels."""
        self._counters.first_byte_s(self._reactor.now - upstream.flow.started)
        upstream.on_event = self._handler

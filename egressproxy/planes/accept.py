"""Accepting: from a listener's queue to a flow that is being read, or refused at the door.

Batches are bounded, so that a flood of connections cannot starve the flows that are open. Where
descriptors run out, accepting pauses until the next tick instead of spinning: the kernel keeps the
queue. A flow over a limit is counted, recorded (floods are folded) and reset.
"""

from __future__ import annotations

import errno
import logging
import math
from typing import TYPE_CHECKING, Any, Final

from egressproxy.kernel.destination import (
    Endpoint,
    local_destination,
    plain_address,
    redirected_destination,
)
from egressproxy.planes.context import ListenerKind
from egressproxy.planes.flow import Flow, Watched
from egressproxy.planes.flows import adopt
from egressproxy.planes.limits import Source
from egressproxy.planes.reactor import IN
from egressproxy.policy.verdict import Action, Reason, Verdict
from egressproxy.policy.verdict import Flow as Facts
from egressproxy.ports import Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from egressproxy.observe.record import Plane
    from egressproxy.planes.explicit import Explicit
    from egressproxy.planes.parts import Parts
    from egressproxy.planes.refuse import Refuser
    from egressproxy.planes.sniff import Sniffer
    from egressproxy.planes.tunnel import Tunnels

_BATCH: Final = 64
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_TELL_EVERY_S: Final = 60.0
_LOOP: Final = Verdict(Action.DENY, Reason.LOOP)

_log = logging.getLogger(__name__)


class Listener(Watched):
    """A listening socket and how its clients begin; ``accept`` gives a descriptor and a name.

    The public ``accept()`` would wrap the descriptor in a socket object of its own.
    """

    __slots__ = ("accept", "begin", "family", "plane", "port", "sock")

    def __init__(self, sock: socket.socket, plane: Plane, begin: Callable[[Flow], None]) -> None:
        self.fd = sock.fileno()
        self.sock = sock
        self.accept: Callable[[], tuple[int, tuple[Any, ...]]] = sock._accept  # type: ignore[attr-defined]  # noqa: SLF001
        self.plane = plane
        self.begin = begin
        self.family = sock.family
        self.port = sock.getsockname()[1]


class Acceptor:
    """The listeners of one engine."""

    def __init__(
        self, parts: Parts, refuser: Refuser, tunnels: Tunnels, sniffer: Sniffer, explicit: Explicit
    ) -> None:
        self._context = parts.context
        self._limits = parts.context.limits
        self._reactor = parts.reactor
        self._flows = parts.flows
        self._refuser = refuser
        self._tunnels = tunnels
        self._sniffer = sniffer
        self._explicit = explicit
        self._listeners: list[Listener] = []
        self._ports: frozenset[int] = frozenset()
        self._paused = False
        self._told_at = -math.inf

    def listen(self, sock: socket.socket, kind: ListenerKind) -> None:
        """Accept from a listening, non-blocking socket, which the caller keeps open."""
        sock.setblocking(False)
        begin = {
            ListenerKind.EXPLICIT: self._explicit.begin,
            ListenerKind.REDIRECT: self._redirected,
            ListenerKind.TPROXY: self._tproxied,
        }
        listener = Listener(sock, kind.plane, begin[kind])
        listener.on_event = self._on_event
        self._listeners.append(listener)
        self._ports |= {listener.port}
        self._reactor.watch(listener, IN)

    def stop(self) -> None:
        """Accept no more; the listeners stay open, as another process may serve them."""
        for listener in self._listeners:
            self._reactor.unwatch(listener)
        self._listeners.clear()

    def tick(self) -> None:
        """Try again after descriptors had run out."""
        if self._paused:
            self._paused = False
            for listener in self._listeners:
                self._reactor.change(listener, IN)

    def _on_event(self, listener: Listener, _events: int) -> None:
        accept = listener.accept
        for _ in range(_BATCH):
            try:
                fd, peer = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error)
                    return
                continue  # that client is gone (ECONNABORTED, and what accept(2) lists beside it)
            self._admit(listener, fd, peer)

    def _pause(self, error: OSError) -> None:
        self._paused = True
        now = self._reactor.now
        is_news = now - self._told_at >= _TELL_EVERY_S
        for listener in self._listeners:
            self._reactor.change(listener, 0)
        if not is_news:
            return
        self._told_at = now
        _log.error(
            "accepting pauses: %s; raise the limit of open files or lower max_flows",
            error.strerror,
        )

    def _admit(self, listener: Listener, fd: int, peer: tuple[Any, ...]) -> None:
        sock = adopt(fd, listener.family)
        address = plain_address(peer[0])
        source = self._limits.admit(address)
        if isinstance(source, Source):
            flow = self._flows.begin(sock, listener.plane, source, peer[1])
            self._reactor.call(flow, listener.begin, flow)
        else:
            flow = self._flows.begin(sock, listener.plane, Source(address), peer[1])
            self._flows.turn_away(flow, Verdict(Action.DENY, source))

    def _redirected(self, flow: Flow) -> None:
        self._intercepted(flow, redirected_destination(flow.client.sock))

    def _tproxied(self, flow: Flow) -> None:
        self._intercepted(flow, local_destination(flow.client.sock))

    def _intercepted(self, flow: Flow, destination: Endpoint | None) -> None:
        """Transparent: pass 1 with the original destination, before a byte is read."""
        context = self._context
        if destination is None:
            self._refuser.deny(flow, _LOOP, b"")  # nobody redirected it: it came straight to us
            return
        address, port = flow.dst_ip, flow.dst_port = destination
        is_loop = port in self._ports and address in context.own_addresses
        flow.ruleset = ruleset = context.ruleset
        if not is_loop and not ruleset.has_network_rules(port):
            self._sniffer.begin(flow)
            return
        flow.facts = facts = Facts(Protocol.TCP, flow.source.address, port, None, address)
        verdict = _LOOP if is_loop else ruleset.decide_network(facts, context.wall_clock())
        if verdict is None:
            flow.facts = None
            self._sniffer.begin(flow)
        elif verdict.is_allow:
            flow.verdict = verdict
            self._tunnels.dial_original(flow)
        else:
            self._refuser.deny(flow, verdict, b"")

"""``Reactor``: the engine's own edge-triggered epoll, nested in the loop as one reader.

Its rules:

- A descriptor is registered once; handlers read and write until ``EAGAIN`` or a short count, since
  an edge is told once. A handler that stops earlier (fairness) asks for another turn by ``again``.
- What makes the kernel send (connect, send, FIN) is done after the batch by those who ask for it
  (``afterwards``): a packet that follows another wakes nobody, one that comes alone does.
- Sockets are closed after that, not during it: a number that the kernel gives out again could
  otherwise meet an event of its former owner.
- One broad ``except`` stands around each handler call: a defect costs one flow, is logged, counted.

While turns are owed, an eventfd keeps the epoll readable, so the outer loop comes back after it has
served its other readers, and the engine needs to know nothing about that loop.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from typing import TYPE_CHECKING, Any, Final

from egressproxy.kernel.sockets import reset_on_close
from egressproxy.kernel.splice import PipePool
from egressproxy.planes.flow import Flow, Leg, Watched

if TYPE_CHECKING:
    from collections.abc import Callable

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
ERR: Final = select.EPOLLERR
HUP: Final = select.EPOLLHUP
RDHUP: Final = select.EPOLLRDHUP
PRI: Final = select.EPOLLPRI

_EDGE_READ: Final = IN | RDHUP | PRI | select.EPOLLET
_EDGE_BOTH: Final = _EDGE_READ | OUT
_BATCH: Final = 256
_TURNS_S: Final = 0.005
"""Owed turns of a batch: flows that always have more to do leave room for the events of others."""
BUFFER_BYTES: Final = 65536

_log = logging.getLogger(__name__)


class Reactor:
    """The table of descriptors, the shared buffer, and the turns that are owed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.now = clock()
        self.table: list[Watched | None] = [None] * 1024
        self.buffer = bytearray(BUFFER_BYTES)
        self.view = memoryview(self.buffer)
        self.pipes = PipePool()
        self.on_crash: Callable[[Flow], None] = _ignore
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        self._register = self._epoll.register
        self._again: dict[Leg, Callable[[Leg], None]] = {}
        self._afterwards: list[tuple[Leg, Callable[[Any], None]]] = []
        self._dead: list[socket.SocketType] = []
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._alarmed = self._owed = False
        self.watch(Watched(self._alarm, nothing), IN)

    def fileno(self) -> int:
        """The epoll's descriptor: readable while there is something to do."""
        return self._epoll.fileno()

    def ready(self) -> None:
        """Handle one batch of events."""
        self.now = self.clock()
        if self._again:
            self._take_turns()
        table = self.table
        for fd, events in self._poll(0, _BATCH):
            entry = table[fd]
            if entry is None:
                continue
            try:
                entry.on_event(entry, events)
            except Exception:  # noqa: BLE001 - the barrier around one flow
                self._crashed(entry)
        self.settle()

    def settle(self) -> None:
        """Send, close what was dropped, set or clear the alarm; ends every entry from outside."""
        if self._afterwards:
            self.send()
        dead = self._dead
        if dead:
            for sock in dead:
                sock.close()
            dead.clear()
        if self._alarmed is not (self._owed or bool(self._again)):
            self._alarmed = not self._alarmed
            if self._alarmed:
                os.eventfd_write(self._alarm, 1)
            else:
                os.eventfd_read(self._alarm)

    def afterwards(self, leg: Leg, act: Callable[[Any], None]) -> None:
        """Run ``act(leg)`` when the batch has been read; it sees itself if the flow has ended."""
        self._afterwards.append((leg, act))

    def send(self) -> None:
        """Do now what was to be done afterwards, one after the other."""
        while self._afterwards:
            acts, self._afterwards = self._afterwards, []
            for leg, act in acts:
                self.call(leg.flow, act, leg)

    def call(self, flow: Flow, handler: Callable[[Any], None], argument: object) -> None:
        """Run a handler that no event started (accept, timer, resolver) behind the same barrier."""
        try:
            handler(argument)
        except Exception:  # noqa: BLE001 - as in ``ready``
            self._crashed(flow)

    def again(self, leg: Leg, turn: Callable[[Leg], None]) -> None:
        """Owe ``turn(leg)``, to be taken in the next batch; asked twice, it is taken once."""
        self._again[leg] = turn

    def is_owed(self, leg: Leg) -> bool:
        """Whether a turn is owed, so that an event of the flow need not be handled before it."""
        return leg in self._again

    def owe(self, owed: bool) -> None:
        """Keep the epoll readable for a turn that is not a leg's; ``settle`` makes it so."""
        self._owed = owed

    def watch(self, entry: Watched, mask: int) -> None:
        """Register a descriptor that is no flow's."""
        self._place(entry)
        self._epoll.register(entry.fd, mask)

    def change(self, entry: Watched, mask: int) -> None:
        """Listen to other events of a descriptor that is no flow's."""
        self._epoll.modify(entry.fd, mask)

    def unwatch(self, entry: Watched) -> None:
        """Forget a descriptor that stays open."""
        if self.table[entry.fd] is entry:
            self.table[entry.fd] = None
            self._epoll.unregister(entry.fd)

    def add(self, leg: Leg) -> None:
        """Register a flow's socket once; what is already readable is told at once."""
        if leg.watched:
            return
        leg.watched = True
        fd = leg.fd
        if fd < len(self.table):
            self.table[fd] = leg
        else:
            self._place(leg)
        self._register(fd, _EDGE_BOTH if leg.waits else _EDGE_READ)

    def want_out(self, leg: Leg) -> None:
        """Ask to be told when a socket takes bytes again; told at once where it does already."""
        if not leg.waits:
            leg.waits = True
            self._epoll.modify(leg.fd, _EDGE_BOTH)

    def drop(self, leg: Leg, *, reset: bool = False) -> None:
        """Close a flow's socket at the end of the batch; with ``reset`` its peer gets a RST."""
        if leg.watched:
            leg.watched = False
            self.table[leg.fd] = None
        if leg.pipe is not None:
            self.pipes.give_back(leg.pipe, empty=not leg.in_pipe)
            leg.pipe = None
        if reset:
            reset_on_close(leg.sock)
        self._dead.append(leg.sock)
        if self._again:
            self._again.pop(leg, None)
        leg.on_event = nothing
        leg.pending = leg.peer = None

    def close(self) -> None:
        """Close what the reactor itself holds; the flows are ended before."""
        self._again.clear()
        self.settle()
        self.pipes.close()
        self._epoll.close()
        os.close(self._alarm)

    def _place(self, entry: Watched) -> None:
        table = self.table
        if entry.fd >= len(table):
            table.extend([None] * (entry.fd + 1024 - len(table)))
        table[entry.fd] = entry

    def _take_turns(self) -> None:
        ends = self.now + _TURNS_S
        for leg in list(self._again):
            turn = self._again.pop(leg, None)  # None where another's turn has ended its flow
            if turn is not None:
                self.call(leg.flow, turn, leg)
                if self.clock() >= ends:
                    return  # the others first next time: who asks again stands behind them

    def _crashed(self, entry: Watched | Flow) -> None:
        _log.exception("a flow is closed because of a defect")
        if isinstance(entry, Leg):
            entry = entry.flow
        if isinstance(entry, Flow):
            try:
                self.on_crash(entry)
            except Exception:  # noqa: BLE001 - what failed once fails again
                _log.exception("a defect in closing a flow")


def _ignore(_flow: Flow) -> None:
    """Nobody to tell yet."""


def nothing(_entry: Watched, _events: int) -> None:
    """Take no notice."""

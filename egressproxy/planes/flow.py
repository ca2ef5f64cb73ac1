"""``Flow`` and ``Leg``: one intercepted connection and its sockets.

A flow is a small state machine without a task: its ``stage`` names where it is, and each socket's
``on_event`` is the stage's handler for what epoll says of it. An idle tunnel costs one ``Flow`` and
two ``Leg``, and everything here is paid for thousands of times: slots only, no closure, and nothing
kept that the record does not need.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from egressproxy.observe.record import NameSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import SocketType

    from egressproxy.kernel.splice import Pipe
    from egressproxy.observe.record import Plane
    from egressproxy.planes.context import Judge
    from egressproxy.planes.limits import Source
    from egressproxy.planes.timers import TimerQueue
    from egressproxy.policy import verdict as judged
    from egressproxy.wire.client_hello import HelloReader


class Stage(Enum):
    """Where a flow is on its way."""

    SNIFF = "sniff"
    """Bytes are read until there is something to judge."""
    RESOLVE = "resolve"
    DIAL = "dial"
    RELAY = "relay"
    HTTP = "http"
    """Request by request, until the end or until it becomes a tunnel (then ``RELAY``)."""
    REFUSE = "refuse"
    """Told no; the rest of what the client sends is read and dropped, within bounds."""
    CLOSED = "closed"


_SNIFF: Final = Stage.SNIFF
_NO_NAME: Final = NameSource.NONE


class Watched:
    """What the reactor's table holds: a descriptor and who handles its events."""

    __slots__ = ("fd", "on_event")

    def __init__(self, fd: int, on_event: Callable[[Any, int], None]) -> None:
        self.fd = fd
        self.on_event = on_event


class Leg(Watched):
    """One socket of a flow, and the direction of bytes that is read from it.

    ``pending`` are bytes read here that ``peer`` has not taken yet; ``in_pipe`` counts those that
    wait in ``pipe``. ``moved`` counts bytes read since the last accounting. ``readable`` says that
    the last read stopped before the socket was empty (edge-triggered: nobody will say it again),
    ``hung_up`` that a FIN is queued behind what is unread, ``ended`` that it was reached and passed
    on, ``broken`` that the connection is reset. ``watched`` says that the reactor has it, ``waits``
    that EPOLLOUT is asked for.
    """

    __slots__ = (
        "broken",
        "ended",
        "flow",
        "hung_up",
        "in_pipe",
        "moved",
        "peer",
        "pending",
        "pipe",
        "readable",
        "sock",
        "waits",
        "watched",
    )

    def __init__(
        self, sock: SocketType, flow: Flow, on_event: Callable[[Any, int], None], *, waits: bool
    ) -> None:
        self.fd = sock.fileno()
        self.on_event = on_event
        self.sock = sock
        self.flow = flow
        self.peer: Leg | None = None
        self.pending: bytes | memoryview | None = None
        self.pipe: Pipe | None = None
        self.in_pipe = 0
        self.moved = 0
        self.readable = False
        self.hung_up = False
        self.ended = False
        self.broken = False
        self.waits = waits
        self.watched = False


class Work(Protocol):
    """What a flow is busy with beside its two legs (a dial, an HTTP session)."""

    def abandon(self) -> None:
        """Close and cancel everything of it; the flow is ending."""
        ...


class Flow:
    """One connection from a client. ``dst_ip`` and ``dst_port`` are where the client wanted to go.

    ``facts`` are what was judged, ``ruleset`` by whom; both are ``None`` before. ``counted`` says
    that the outcome is in the counters, ``hello_split`` that a ClientHello came in several records
    or reads though one segment holds it. ``up`` and ``down`` are accounted bytes (``Leg.moved``).
    ``timer`` is the queue that the flow waits in. ``started`` and ``touched`` are monotonic
    seconds, the latter as coarse as the engine's ticks.
    """

    __deletable__ = ("client",)  # for mypyc: ``Flows`` breaks the cycle by deleting it
    __slots__ = (
        "alpn",
        "client",
        "counted",
        "dialled_ip",
        "down",
        "dst_ip",
        "dst_port",
        "facts",
        "half_closed",
        "hello_split",
        "match",
        "name_source",
        "number",
        "plane",
        "reader",
        "requests",
        "ruleset",
        "source",
        "src_port",
        "stage",
        "started",
        "timer",
        "tls_versions",
        "touched",
        "up",
        "upstream",
        "verdict",
        "work",
    )

    client: Leg

    def __init__(
        self, number: int, plane: Plane, source: Source, src_port: int, started: float
    ) -> None:
        self.number = number
        self.plane = plane
        self.source = source
        self.src_port = src_port
        self.started = self.touched = started
        self.stage = _SNIFF
        self.dst_ip: str | None = None
        self.dst_port = 0
        self.ruleset: Judge | None = None
        self.facts: judged.Flow | None = None
        self.verdict: judged.Verdict | None = None
        self.name_source = _NO_NAME
        self.alpn: tuple[str, ...] = ()
        self.tls_versions: tuple[str, ...] = ()
        self.reader: HelloReader | None = None
        self.upstream: Leg | None = None
        self.work: Work | None = None
        self.timer: TimerQueue[Flow] | None = None
        self.dialled_ip: str | None = None
        self.match: str = "unknown"
        self.counted = self.half_closed = self.hello_split = False
        self.requests = 0
        self.up = self.down = 0

"""What the engine is given: one ``EngineContext`` per worker, and the roles its members play.

The roles are protocols, so that the engine names what it needs and no more; the real ones are
``policy.ruleset.Ruleset``, ``resolve.resolver.Resolver``, ``observe.log.RecordLog`` and
``observe.counters.WorkerCounters``. A test gives its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from egressproxy.observe.record import Plane

if TYPE_CHECKING:
    from collections.abc import Callable

    from egressproxy.names import DnsName
    from egressproxy.observe.record import FlowRecord
    from egressproxy.planes.limits import WorkerLimits
    from egressproxy.policy.rules import OnReload, Refusal
    from egressproxy.policy.verdict import Action, Flow, Reason, Verdict
    from egressproxy.ports import Protocol as Speaks
    from egressproxy.resolve.guard import Guard
    from egressproxy.settings import Settings


class ListenerKind(StrEnum):
    """How a listener's clients came to it, and so where their original destination is written."""

    EXPLICIT = "explicit"
    """A proxy port: the client names its destination (CONNECT, absolute-form)."""
    REDIRECT = "redirect"
    """nft ``redirect``: conntrack knows it (``SO_ORIGINAL_DST``)."""
    TPROXY = "tproxy"
    """nft ``tproxy``: it is the socket's own address."""

    @property
    def plane(self) -> Plane:
        """The plane that records and metrics name."""
        return Plane.EXPLICIT if self is ListenerKind.EXPLICIT else Plane.TRANSPARENT


class AllowRecords(StrEnum):
    """Which allowed flows are written to the record log; denies and errors always are."""

    NONE = "none"
    ALL = "all"
    SAMPLE = "sample"
    """One in ``EngineOptions.sample_every``."""


class Judge(Protocol):
    """A compiled policy: ``decide`` never raises and never waits."""

    @property
    def digest(self) -> str:
        """Hex digest of the policy, written into every record."""
        ...

    @property
    def refusal(self) -> Refusal:
        """How a denied client is told."""
        ...

    @property
    def on_reload(self) -> OnReload:
        """What becomes of open flows which this ruleset denies."""
        ...

    def decide(self, flow: Flow, now: float) -> Verdict:
        """Both passes; ``now`` is POSIX seconds."""
        ...

    def has_network_rules(self, port: int) -> bool:
        """Whether pass 1 can match anything at a port."""
        ...

    def decide_network(self, flow: Flow, now: float) -> Verdict | None:
        """Pass 1 only; ``None`` where nothing matched."""
        ...

    def decide_application(self, flow: Flow, now: float) -> Verdict:
        """Pass 2 only."""
        ...

    def decide_name(self, flow: Flow, now: float) -> Verdict:
        """Both passes, of a flow whose name is dialled, whatever address its client wanted."""
        ...

    def application_ports(self) -> frozenset[tuple[Speaks, int]]:
        """Every (tls or http, port) that some rule uses."""
        ...

    def note(self, name: DnsName) -> str:
        """The catalog's word on a denied name."""
        ...

    def source_group(self, src: str) -> str | None:
        """The policy's name for a source address."""
        ...


class Answer(Protocol):
    """What the resolver knows of a name."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Canonical texts in the order to try."""
        ...

    @property
    def error(self) -> str:
        """Empty, or why there are none."""
        ...


class NameResolver(Protocol):
    """Names to addresses, with a cache in front."""

    def cached(self, name: DnsName) -> Answer | None:
        """A live answer, at once."""
        ...

    def resolve(
        self, name: DnsName, callback: Callable[[Answer], None], *, whole: bool = False
    ) -> None:
        """Ask; the callback comes later from the loop, exactly once, also on failure.

        With ``whole`` it comes with the addresses of both families.
        """
        ...


class RecordSink(Protocol):
    """Where records go; never blocks."""

    def write(self, record: FlowRecord) -> None:
        """Take one record."""
        ...


class FlowCounters(Protocol):
    """The worker's row of the shared counters."""

    def flush(self) -> None:
        """Let others see what was counted; called once a tick."""
        ...

    def flow(
        self, plane: Plane, action: Action, reason: Reason, *, would_deny: bool = False
    ) -> None:
        """Count a judged flow."""
        ...

    def active(self, plane: Plane, delta: int) -> None:
        """Flows begun (+1) or ended (-1)."""
        ...

    def bytes_moved(self, up: int, down: int) -> None:
        """Bytes relayed."""
        ...

    def hello_size(self, size: int) -> None:
        """Bytes of a ClientHello."""
        ...

    def decide_s(self, seconds: float) -> None:
        """Time a judgement took."""
        ...

    def resolve_s(self, seconds: float) -> None:
        """Time a name's addresses took, cache misses only."""
        ...

    def dial_s(self, seconds: float) -> None:
        """From the first connect to a connection."""
        ...

    def first_byte_s(self, seconds: float) -> None:
        """From accept to the upstream's first byte."""
        ...

    def stall_s(self, seconds: float) -> None:
        """The longest time the engine was away from its flows (a maximum)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What is chosen per service and is no limit.

    ``mark`` is the SO_MARK of upstream sockets, 0 for none. ``worker`` is this worker's index, the
    first part of a flow's id. ``sample_every`` N writes one allow in N (with ``SAMPLE``).
    """

    allow_records: AllowRecords = AllowRecords.NONE
    sample_every: int = 100
    mark: int = 0
    worker: int = 0


@dataclass(slots=True, kw_only=True)
class EngineContext:
    """Everything an engine uses and does not own.

    ``ruleset`` is replaced by ``Engine.swap``. ``own_addresses`` are canonical texts of this host's
    addresses (``kernel.addresses``); a flow addressed to one of them on a listening port is a loop.
    ``clock`` is monotonic seconds, ``wall_clock`` POSIX seconds.
    """

    settings: Settings
    ruleset: Judge
    resolver: NameResolver
    guard: Guard
    log: RecordSink
    counters: FlowCounters
    limits: WorkerLimits
    own_addresses: frozenset[str] = frozenset()
    options: EngineOptions = field(default_factory=EngineOptions)
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time

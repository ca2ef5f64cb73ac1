"""``Survey``: the open flows as an operator sees them, of very many the oldest and the busiest.

It looks at a slice of the reactor's table a turn, so that twenty thousand flows stall nobody, and
costs nothing while nobody asks. Flows that begin or end meanwhile may be missing.
"""

from __future__ import annotations

from heapq import nlargest, nsmallest
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from egressproxy.planes.flow import Flow, Leg, Stage
from egressproxy.planes.http_work import HttpWork

if TYPE_CHECKING:
    from egressproxy.planes.context import EngineContext
    from egressproxy.planes.ledger import Ledger
    from egressproxy.planes.reactor import Reactor

SLICE: Final = 256
"""Places of the reactor's table that one turn looks at: a fraction of a millisecond."""
_ALPN_ITEMS: Final = 8
_ALPN_TEXT: Final = 32


class FlowFacts(NamedTuple):
    """An open flow; ``since`` is POSIX seconds, ``age_s`` and ``idle_s`` are seconds.

    ``flow_id`` is that of its records. Of an HTTP connection ``name``, ``rule``, ``dialled_ip`` are
    those of its last request, and the octets those of the names it has open. ``name`` is missing
    until something is judged. ``alpn`` (cut short, as in records) and ``tls_versions`` are what the
    client offered.
    """

    flow_id: str
    number: int
    plane: str
    stage: str
    protocol: str
    since: float
    age_s: float
    idle_s: float
    src: str
    src_port: int
    dst: str | None
    dst_port: int
    name: str | None
    alpn: tuple[str, ...]
    tls_versions: tuple[str, ...]
    rule: str | None
    reason: str
    would_deny: bool
    dialled_ip: str | None
    bytes_up: int
    bytes_down: int


class Survey:
    """Call ``turn`` until it says that it is done, then ``facts``.

    Args:
        context: its clocks.
        reactor: the table that is looked at.
        ledger: knows the ids of flows.
        most: so many of the oldest, and so many of those that moved the most octets.
    """

    def __init__(
        self, context: EngineContext, reactor: Reactor, ledger: Ledger, *, most: int
    ) -> None:
        self._context = context
        self._reactor = reactor
        self._ledger = ledger
        self._most = most
        self._place = 0
        self._oldest: list[Flow] = []
        self._busiest: list[Flow] = []

    def turn(self) -> bool:
        """Look at a slice; whether that was the last."""
        table, place = self._reactor.table, self._place
        self._place = place + SLICE
        found = [
            entry.flow
            for entry in table[place : self._place]
            if isinstance(entry, Leg) and entry is entry.flow.client
        ]
        if found:
            self._oldest = nsmallest(self._most, chain(self._oldest, found), key=_started)
            self._busiest = nlargest(self._most, chain(self._busiest, found), key=_octets)
        return self._place >= len(table)

    def facts(self) -> list[FlowFacts]:
        """The flows that are still open, the oldest first."""
        chosen = {flow.number: flow for flow in chain(self._oldest, self._busiest)}
        is_open = (flow for flow in chosen.values() if flow.stage is not Stage.CLOSED)
        return [self._facts(flow) for flow in sorted(is_open, key=_started)]

    def _facts(self, flow: Flow) -> FlowFacts:
        now = self._reactor.now
        age_s = now - flow.started
        asked, verdict = flow.facts, flow.verdict
        name, dialled_ip = None if asked is None else asked.name or asked.connect, flow.dialled_ip
        work = flow.work
        if isinstance(work, HttpWork) and (last := work.session.last_record) is not None:
            verdict, dialled_ip = last.verdict, last.dialled_ip or None
            name = None if last.authority is None else last.authority.name
        up, down = _moved(flow)
        return FlowFacts(
            flow_id=self._ledger.flow_id(flow),
            number=flow.number,
            plane=flow.plane.value,
            stage=flow.stage.value,
            protocol=_protocol(flow),
            since=self._context.wall_clock() - age_s,
            age_s=age_s,
            idle_s=now - flow.touched,
            src=flow.source.address,
            src_port=flow.src_port,
            dst=flow.dst_ip,
            dst_port=flow.dst_port,
            name=name,
            alpn=tuple(each[:_ALPN_TEXT] for each in flow.alpn[:_ALPN_ITEMS]),
            tls_versions=flow.tls_versions[:_ALPN_ITEMS],
            rule=None if verdict is None else verdict.rule_id,
            reason="" if verdict is None else verdict.reason.value,
            would_deny=verdict is not None and verdict.would_deny,
            dialled_ip=dialled_ip,
            bytes_up=up,
            bytes_down=down,
        )


def _started(flow: Flow) -> float:
    return flow.started


def _octets(flow: Flow) -> int:
    up, down = _moved(flow)
    return up + down


def _moved(flow: Flow) -> tuple[int, int]:
    """Octets up and down so far; of a flow that has ended meanwhile those that were accounted."""
    work = flow.work
    if isinstance(work, HttpWork):
        return work.session.bytes_moved()
    if flow.stage is Stage.CLOSED:
        return flow.up, flow.down
    upstream = flow.upstream
    return flow.up + flow.client.moved, flow.down + (0 if upstream is None else upstream.moved)


def _protocol(flow: Flow) -> str:
    if flow.stage is Stage.HTTP:
        return "http"
    return "" if flow.facts is None else str(flow.facts.protocol)

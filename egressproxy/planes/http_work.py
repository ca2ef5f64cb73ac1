"""``HttpWork``: what an HTTP flow has beside its client, and how its requests are judged."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from egressproxy.planes.http_session import HttpSession
from egressproxy.policy.verdict import Flow as Facts
from egressproxy.ports import Protocol as Speaks

if TYPE_CHECKING:
    from egressproxy.planes.context import EngineContext
    from egressproxy.planes.dial import Attempt, Dial
    from egressproxy.planes.flow import Flow
    from egressproxy.planes.http_commands import Command
    from egressproxy.planes.ledger import Ledger
    from egressproxy.policy.verdict import Reason, Verdict
    from egressproxy.wire.http_authority import Authority


class Abandons(Protocol):
    """Who lets go of what a work holds."""

    def abandon(self, work: HttpWork) -> None:
        """Close upstreams and dials, finish the records."""
        ...


class RequestJudge:
    """Answers the session's question for every request, by the ruleset of the moment.

    It does not know the session, or the two would keep each other alive. Inside a CONNECT tunnel
    every Host must be the name in ``connect``.
    """

    __slots__ = ("_context", "_flow", "_ledger", "connect")

    def __init__(self, flow: Flow, context: EngineContext, ledger: Ledger) -> None:
        self._flow = flow
        self._context = context
        self._ledger = ledger
        self.connect = None if flow.facts is None else flow.facts.name

    def facts(self, authority: Authority | None, fault: Reason | None) -> Facts:
        """What is judged of one request."""
        flow = self._flow
        name, address, port = None, flow.dst_ip, flow.dst_port
        if authority is not None:
            name, port = authority.name, authority.port
            address = address or authority.address
        source = flow.source.address
        return Facts(Speaks.HTTP, source, port, name, address, self.connect, fault=fault)

    def __call__(self, authority: Authority | None, fault: Reason | None) -> Verdict:
        """The verdict on one request."""
        flow = self._flow
        ruleset = flow.ruleset = self._context.ruleset
        decide = ruleset.decide if flow.dst_ip is None else ruleset.decide_name
        return self._ledger.judge(flow, self.facts(authority, fault), decide)


class HttpWork:
    """The session, its dials and upstreams by number, and what its sockets have not taken yet."""

    __slots__ = (
        "_plane",
        "allowance",
        "commands",
        "dials",
        "flow",
        "is_running",
        "judge",
        "legs",
        "session",
        "to_client",
        "to_upstream",
    )

    def __init__(self, plane: Abandons, flow: Flow, context: EngineContext, ledger: Ledger) -> None:
        self._plane = plane
        self.flow = flow
        self.judge = RequestJudge(flow, context, ledger)
        self.session = HttpSession(
            self.judge,
            port=flow.dst_port or None,
            max_head_bytes=context.settings.max_request_head_bytes,
        )
        self.commands: deque[Command] = deque()
        self.is_running = False
        self.allowance = 0  # what may still be read in this turn
        self.dials: dict[int, Dial] = {}
        self.legs: dict[int, Attempt] = {}
        self.to_client = bytearray()
        self.to_upstream: dict[int, bytearray] = {}

    def abandon(self) -> None:
        """The flow ends: close upstreams and dials, finish the records."""
        self._plane.abandon(self)

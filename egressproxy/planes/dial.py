"""Dialling: from an allowed name to a connected socket.

The name comes from the client, the addresses from our own resolver, and the guard stands between.
Several addresses are tried as RFC 8305 (Happy Eyeballs) says: in the answer's order, the next one
after ``happy_eyeballs_delay_s`` or as soon as one fails; the first connection wins and the others
are closed. One address has ``dial_timeout_s``, all together ``dial_total_timeout_s``.
"""

from __future__ import annotations

import errno
from functools import partial
from socket import AF_INET, AF_INET6, SO_ERROR, SOL_SOCKET
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from egressproxy.kernel.sockets import can_mark, connecting
from egressproxy.planes.flow import Leg, Stage
from egressproxy.planes.reactor import ERR, HUP, IN, OUT, RDHUP
from egressproxy.policy.rules import Destination
from egressproxy.policy.verdict import Pass, Reason
from egressproxy.resolve.guard import ANYWHERE, choose, choose_original

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Network, IPv6Network
    from socket import SocketType
    from typing import Any

    from egressproxy.names import DnsName
    from egressproxy.planes.context import Answer
    from egressproxy.planes.flow import Flow
    from egressproxy.planes.parts import Parts
    from egressproxy.policy.rules import Rule
    from egressproxy.policy.verdict import Verdict
    from egressproxy.resolve.guard import Choice, Guard

_HTTP: Final = Stage.HTTP
_DIAL: Final = Stage.DIAL
_MAX_ATTEMPTS: Final = 16
"""Addresses of one answer that are tried; names with hundreds of records exist."""
_MEMO_CHOICES: Final = 4096


class Target(NamedTuple):
    """Whom to dial: a name, or (``name`` is ``None``) an address that the client chose."""

    name: DnsName | None
    address: str | None
    port: int


class Dialled(Protocol):
    """Who asked for a dial; told once how it ended, unless the dial was abandoned."""

    def connected(self, dial: Dial, upstream: Attempt) -> None:
        """``upstream`` is connected and belongs to the asker, who sets its ``on_event``."""
        ...

    def dial_failed(self, dial: Dial, reason: Reason) -> None:
        """No connection: ``forbidden_address``, ``resolve_failed``, ``dial_timeout``, …."""
        ...


class Attempt(Leg):
    """A socket that is being connected to one address; the one that wins is the upstream's leg."""

    __slots__ = ("address", "dial", "kept_alive", "key")

    def __init__(
        self, sock: SocketType, dial: Dial, address: str, on_event: Callable[[Any, int], None]
    ) -> None:
        Leg.__init__(self, sock, dial.flow, on_event, waits=True)
        self.address = address
        self.dial: Dial | None = dial
        self.kept_alive = False
        self.key = 0


class Dial:
    """One dial under way. ``key`` is the asker's own (an HTTP session's upstream number)."""

    __slots__ = (
        "attempts",
        "candidates",
        "dialler",
        "failure",
        "flow",
        "is_race",
        "key",
        "match",
        "owner",
        "started",
        "target",
        "verdict",
    )

    def __init__(
        self, dialler: Dialler, flow: Flow, owner: Dialled, target: Target, verdict: Verdict
    ) -> None:
        self.dialler = dialler
        self.flow = flow
        self.owner = owner
        self.target = target
        self.verdict = verdict
        self.key = 0
        self.is_race = False
        self.candidates: list[str] = []  # reversed: the next one is the last
        self.attempts: list[Attempt] = []
        self.started = 0.0
        self.failure = Reason.DIAL_FAILED
        self.match: str = "unknown"

    def abandon(self) -> None:
        """Close every attempt and wait for nothing; the asker is not told."""
        self.dialler.abandon(self)


class Dialler:
    """Carries out dials."""

    def __init__(self, parts: Parts) -> None:
        self._context = parts.context
        self._reactor = parts.reactor
        self._timers = parts.timers
        self._address_timer = parts.timers.address
        self._counters = parts.context.counters
        self._handler = self._on_event  # one bound method for all attempts
        self._connecter = self._connect
        # By addresses, original destination and rule. An entry keeps its rule alive, so that the
        # id is no other rule's.
        self._choices: dict[
            tuple[tuple[str, ...], str | None, int], tuple[Rule | None, Guard, Choice]
        ] = {}
        self._mark = parts.context.options.mark if parts.context.options.mark and can_mark() else 0

    def prepare(self, flow: Flow, owner: Dialled, target: Target, verdict: Verdict) -> Dial:
        """A dial that ``start`` begins."""
        return Dial(self, flow, owner, target, verdict)

    def start(self, dial: Dial) -> None:
        """Resolve, choose, connect; the owner may be told before this returns."""
        flow, target = dial.flow, dial.target
        dial.started = self._reactor.now
        if target.name is None:
            self._take(dial, self._choose_original(target.address or "", dial.verdict))
            return
        answer = self._context.resolver.cached(target.name)
        if answer is not None:
            self._take(dial, self._choose(dial, answer))
            return
        if flow.stage is not _HTTP:
            flow.stage = Stage.RESOLVE
        rule = dial.verdict.rule
        # Where the client's own address counts, a family that is still missing might hold it.
        whole = rule is not None and rule.destination is not Destination.RESOLVE
        self._context.resolver.resolve(target.name, partial(self._resolved, dial), whole=whole)

    def forget(self) -> None:
        """A new policy has rules of its own: what was chosen by the old ones keeps them alive."""
        self._choices.clear()

    def abandon(self, dial: Dial) -> None:
        """See ``Dial.abandon``."""
        self._settle(dial)
        dial.started = -1.0

    def _settle(self, dial: Dial) -> None:
        """Drop what is still being tried."""
        dial.candidates = []
        self._timers.stagger.cancel(dial)
        self._timers.dial.cancel(dial)
        attempts, dial.attempts = dial.attempts, []
        for attempt in attempts:
            self._drop(attempt)

    def tick(self, now: float) -> None:
        """Expire what waits."""
        for attempt in self._timers.address.expire(now):
            self._reactor.call(attempt.flow, self._timed_out, attempt)
        for dial in self._timers.stagger.expire(now):
            self._reactor.call(dial.flow, self._staggered, dial)
        for dial in self._timers.dial.expire(now):
            self._reactor.call(dial.flow, self._expired, dial)

    def _resolved(self, dial: Dial, answer: Answer) -> None:
        """The resolver's callback."""
        if dial.started < 0:
            return  # abandoned meanwhile
        reactor = self._reactor
        reactor.now = reactor.clock()
        self._counters.resolve_s(reactor.now - dial.started)
        dial.started = reactor.now
        reactor.call(dial.flow, partial(self._take_answer, dial), answer)
        reactor.settle()

    def _take_answer(self, dial: Dial, answer: Answer) -> None:
        self._take(dial, self._choose(dial, answer))

    def _choose(self, dial: Dial, answer: Answer) -> Choice:
        """What to dial; equal questions are answered from a memo."""
        rule, original, guard = dial.verdict.rule, dial.flow.dst_ip, self._context.guard
        key = (answer.addresses, original, id(rule))
        known = self._choices.get(key)
        if known is not None and known[0] is rule and known[1] is guard:
            return known[2]
        if len(self._choices) >= _MEMO_CHOICES:
            self._choices.clear()
        mode = Destination.RESOLVE if rule is None else rule.destination
        allowed = () if rule is None else rule.addresses
        choice = choose(answer.addresses, original, mode, guard=guard, allowed=allowed)
        self._choices[key] = (rule, guard, choice)
        return choice

    def _choose_original(self, address: str, verdict: Verdict) -> Choice:
        """An address that pass 1 allowed is listed by that; an audited one is not."""
        allowed: tuple[IPv4Network | IPv6Network, ...] = ()
        rule = verdict.rule
        if rule is not None and verdict.decided_by is Pass.NETWORK:
            allowed = ANYWHERE if rule.any_destination else rule.networks
        return choose_original(address, guard=self._context.guard, allowed=allowed)

    def _take(self, dial: Dial, choice: Choice) -> None:
        dial.match = choice.destination_match
        if choice.reason is not None:
            self._fail(dial, choice.reason)
            return
        dial.candidates = candidates = list(choice.candidates)
        if len(candidates) > 1:
            del candidates[_MAX_ATTEMPTS:]
            candidates.reverse()
            dial.is_race = True
            self._timers.dial.arm(dial, self._reactor.now)
        if dial.flow.stage is not _HTTP:
            dial.flow.stage = _DIAL
        self._next(dial)

    def _next(self, dial: Dial) -> None:
        """Start on the next address that can be started on; fail where none is left."""
        candidates = dial.candidates
        while candidates:
            attempt = self._attempt(dial, candidates.pop())
            if attempt is not None:
                dial.attempts.append(attempt)
                self._address_timer.arm(attempt, self._reactor.now)
                if candidates:
                    self._timers.stagger.arm(dial, self._reactor.now)
                return
        if not dial.attempts:
            self._fail(dial, dial.failure)

    def _attempt(self, dial: Dial, address: str) -> Attempt | None:
        """A socket that is connected when the batch has been read."""
        try:
            family = AF_INET6 if ":" in address else AF_INET
            has_words = dial.flow.client.pending is not None
            sock = connecting(family, self._mark, speaks_at_once=has_words)
        except OSError:
            return None  # no descriptor: the client hears dial_failed
        attempt = Attempt(sock, dial, address, self._handler)
        self._reactor.afterwards(attempt, self._connecter)
        return attempt

    def _connect(self, attempt: Attempt) -> None:
        dial = attempt.dial
        if dial is None:
            return  # given up within the batch
        try:
            error = attempt.sock.connect_ex((attempt.address, dial.target.port))
        except (OSError, OverflowError):
            error = errno.EINVAL
        if error and error != errno.EINPROGRESS:
            self._try_another(attempt, dial)
        else:
            self._reactor.add(attempt)

    def _on_event(self, attempt: Attempt, events: int) -> None:
        dial = attempt.dial
        if dial is None:
            return
        if events & (ERR | HUP):
            self._failed(attempt, dial)
        elif events & OUT:
            # What came with the connection must be remembered: the edge is told once.
            attempt.readable = bool(events & (IN | RDHUP))
            attempt.hung_up = bool(events & RDHUP)
            self._won(attempt, dial)

    def _won(self, attempt: Attempt, dial: Dial) -> None:
        self._address_timer.cancel(attempt)
        attempt.dial = None
        dial.attempts.remove(attempt)
        if dial.is_race:
            self._settle(dial)
        self._counters.dial_s(self._reactor.now - dial.started)
        dial.owner.connected(dial, attempt)

    def _failed(self, attempt: Attempt, dial: Dial) -> None:
        error = attempt.sock.getsockopt(SOL_SOCKET, SO_ERROR)
        dial.failure = Reason.DIAL_TIMEOUT if error == errno.ETIMEDOUT else Reason.DIAL_FAILED
        self._try_another(attempt, dial)

    def _timed_out(self, attempt: Attempt) -> None:
        dial = attempt.dial
        if dial is not None:
            dial.failure = Reason.DIAL_TIMEOUT
            self._try_another(attempt, dial)

    def _try_another(self, attempt: Attempt, dial: Dial) -> None:
        dial.attempts.remove(attempt)
        self._drop(attempt)
        self._next(dial)

    def _staggered(self, dial: Dial) -> None:
        self._next(dial)

    def _expired(self, dial: Dial) -> None:
        self._fail(dial, Reason.DIAL_TIMEOUT)

    def _drop(self, attempt: Attempt) -> None:
        self._timers.address.cancel(attempt)
        attempt.dial = None
        self._reactor.drop(attempt)

    def _fail(self, dial: Dial, reason: Reason) -> None:
        self.abandon(dial)
        dial.owner.dial_failed(dial, reason)

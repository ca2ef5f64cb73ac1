"""``Resolver``: names to addresses for the flow engine, by callbacks and without a task.

``cached`` answers on the hot path. ``resolve`` asks for A and AAAA at once, once for all who wait
for a name, and calls back from the loop. Of two families the first to bring addresses waits 50 ms
for the other (RFC 8305 section 3, "Resolution Delay") and is then given alone to those who can use
it; only whole answers are kept. Addresses alternate between families, IPv6 first where the host
has a global IPv6 source for it (RFC 8305 section 4, RFC 6724 rules 2 and 5 in short).

Bounds: names in flight ``dns_in_flight``, waiting flows ``max_flows``, names kept
``dns_cache_entries``; above the first two an answer is ``busy`` at once.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from egressproxy.resolve.cache import Answer, Cache, Failure
from egressproxy.resolve.stub import Family, Part, Stub, parse_server

if TYPE_CHECKING:
    from egressproxy.names import DnsName
    from egressproxy.settings import Settings

Callback: TypeAlias = Callable[[Answer], None]

RESOLUTION_DELAY_S: Final = 0.05
FAILURE_TTL_S: Final = 1.0  # servfail and timeout, RFC 2308 section 7: the next flow may ask again
_ROUTE_TTL_S: Final = 5.0
_PROBE: Final = ("2000::1", 53)  # any global address: connecting a UDP socket sends nothing


class Lookup(StrEnum):
    """What is counted: an answer from the cache (addresses or a failure), a question, a failure."""

    HIT = "hit"
    NEGATIVE = "negative"
    MISS = "miss"
    ERROR = "error"


# An attribute of an enum class costs a call before Python 3.12.
_HIT: Final = Lookup.HIT
_NEGATIVE: Final = Lookup.NEGATIVE


class LookupCounters(Protocol):
    """Where the resolver counts; ``observe.counters.WorkerCounters`` is one."""

    def resolver(self, outcome: str) -> None:
        """Count one look-up; ``outcome`` is a ``Lookup``."""
        ...


class _Question:
    """A name in flight: who waits for it and what has come so far."""

    __slots__ = ("deadline", "delay", "early", "name", "outstanding", "parts", "waiters", "whole")

    def __init__(self, name: DnsName) -> None:
        self.name = name
        self.parts: dict[Family, Part] = {}
        self.outstanding = len(Family)
        self.waiters: list[Callback] = []
        self.whole: list[Callback] = []
        self.early: Answer | None = None
        self.deadline: asyncio.TimerHandle | None = None
        self.delay: asyncio.TimerHandle | None = None


class Resolver:
    """Belongs to the running loop of its first ``resolve``; not for several threads.

    Args:
        settings: TTL bounds, sizes, timeout.
        servers: ``ADDRESS[:PORT]``, tried in order; none means those of the system.
        overrides: names with fixed addresses, for labs; never asked for.
        prefers_ipv6: whether IPv6 addresses come first.
        counters: where look-ups are counted.

    Raises:
        ServiceError: a server that is not an address.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        servers: Sequence[str] = (),
        overrides: Mapping[DnsName, tuple[str, ...]] | None = None,
        prefers_ipv6: Callable[[], bool] | None = None,
        counters: LookupCounters | None = None,
    ) -> None:
        self._settings = settings
        self._servers = tuple(parse_server(server) for server in servers)
        self._overrides = {
            name: Answer(tuple(addresses), expires_at=math.inf)
            for name, addresses in (overrides or {}).items()
        }
        self._cache = Cache(settings.dns_cache_entries)
        self._prefers_ipv6 = prefers_ipv6 or _IPv6Preference()
        self._count = counters.resolver if counters else _ignore
        self._questions: dict[DnsName, _Question] = {}
        self._open = 0  # questions whose two halves are not both back, timed out ones included
        self._waiting = 0
        self._stub: Stub | None = None
        self._is_closed = False

    def cached(self, name: DnsName) -> Answer | None:
        """The answer if it is known now: addresses, or a failure that is still remembered."""
        answer = self._known(name)
        if answer is not None:
            self._count(_NEGATIVE if answer.error else _HIT)
        return answer

    def resolve(self, name: DnsName, callback: Callback, *, whole: bool = False) -> None:
        """Call ``callback`` with the answer: from the loop, later, exactly once, on failure too.

        Args:
            name: what to ask for.
            callback: must not raise; an exception goes to the loop's handler.
            whole: wait for both families, for ``destination: strict`` and ``prefer-original``,
                where a missing family could be the client's own address.
        """
        answer = self._known(name)
        if answer is None:
            answer = self._join(name, callback, whole=whole)
        if answer is not None:
            asyncio.get_running_loop().call_soon(callback, answer)

    async def aclose(self) -> None:
        """Answer ``closed`` to all who wait; nothing of this resolver runs afterwards."""
        self._is_closed = True
        for question in tuple(self._questions.values()):
            self._settle(question, Answer(error=Failure.CLOSED))
        if self._stub is not None:
            await self._stub.aclose()
        await asyncio.sleep(0)  # the answers just given are delivered

    def _known(self, name: DnsName) -> Answer | None:
        if self._overrides and (fixed := self._overrides.get(name)) is not None:
            return fixed
        return self._cache.get(name, asyncio.get_running_loop().time())

    def _join(self, name: DnsName, callback: Callback, *, whole: bool) -> Answer | None:
        """Wait for a question, asking it if need be; an answer where there is one at once."""
        question = self._questions.get(name)
        if question is None:
            if self._is_closed:
                return Answer(error=Failure.CLOSED)
            if self._open >= self._settings.dns_in_flight:
                self._count(Lookup.ERROR)
                return Answer(error=Failure.BUSY)
            question = self._ask(name)
        elif question.early is not None and not whole:
            return question.early
        if self._waiting >= self._settings.max_flows:
            return Answer(error=Failure.BUSY)
        (question.whole if whole else question.waiters).append(callback)
        self._waiting += 1
        return None

    def _ask(self, name: DnsName) -> _Question:
        if self._stub is None:
            self._stub = Stub(self._servers, self._settings.resolve_timeout_s)
        self._count(Lookup.MISS)
        self._open += 1
        question = self._questions[name] = _Question(name)
        question.deadline = asyncio.get_running_loop().call_later(
            self._settings.resolve_timeout_s, self._time_out, question
        )
        for family in Family:
            self._stub.ask(name, family, partial(self._arrived, question, family))
        return question

    def _arrived(self, question: _Question, family: Family, part: Part) -> None:
        question.outstanding -= 1
        if not question.outstanding:
            self._open -= 1
        if self._questions.get(question.name) is not question:
            return  # it was answered by the clock meanwhile
        question.parts[family] = part
        if not question.outstanding:
            self._finish(question)
        elif part.addresses:
            question.delay = asyncio.get_running_loop().call_later(
                RESOLUTION_DELAY_S, self._go_early, question
            )

    def _go_early(self, question: _Question) -> None:
        question.early = self._combine(question.parts)
        self._deliver(question.waiters, question.early)

    def _time_out(self, question: _Question) -> None:
        for family in Family:
            question.parts.setdefault(family, Part(error=Failure.TIMEOUT))
        self._finish(question)

    def _finish(self, question: _Question) -> None:
        answer = self._combine(question.parts)
        if answer.error:
            self._count(Lookup.ERROR)
        if answer.error is not Failure.CLOSED:
            self._cache.put(question.name, answer)
        self._settle(question, answer)

    def _settle(self, question: _Question, answer: Answer) -> None:
        del self._questions[question.name]
        for timer in (question.deadline, question.delay):
            if timer is not None:
                timer.cancel()
        self._deliver(question.waiters, answer)
        self._deliver(question.whole, answer)

    def _deliver(self, callbacks: list[Callback], answer: Answer) -> None:
        # One turn each, so that one that raises takes nobody with it.
        loop = asyncio.get_running_loop()
        self._waiting -= len(callbacks)
        for callback in callbacks:
            loop.call_soon(callback, answer)
        callbacks.clear()

    def _combine(self, parts: Mapping[Family, Part]) -> Answer:
        settings, now = self._settings, asyncio.get_running_loop().time()
        order = (Family.IPV6, Family.IPV4) if self._prefers_ipv6() else (Family.IPV4, Family.IPV6)
        addresses = _interleave([parts[f].addresses for f in order if f in parts])
        if addresses:
            ttl_s = min(part.ttl_s for part in parts.values() if part.addresses)
            lifetime_s = min(max(ttl_s, settings.dns_min_ttl_s), settings.dns_max_ttl_s)
            return Answer(addresses, expires_at=now + lifetime_s)
        error = _worst({part.error for part in parts.values()})
        lifetime_s = settings.dns_negative_ttl_s
        if error not in (Failure.NXDOMAIN, Failure.NO_ADDRESS):
            lifetime_s = min(lifetime_s, FAILURE_TTL_S)
        return Answer(error=error, expires_at=now + lifetime_s)


class _IPv6Preference:
    """``has_global_ipv6``, asked again only every few seconds."""

    def __init__(self) -> None:
        self._until, self._value = -math.inf, False

    def __call__(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            self._until, self._value = now + _ROUTE_TTL_S, has_global_ipv6()
        return self._value


def has_global_ipv6() -> bool:
    """Whether this host would reach a global IPv6 address from a global one.

    A unique local source (fc00::/7) does not count: RFC 6724 rule 5 then prefers IPv4.
    """
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
            probe.connect(_PROBE)
            source: str = probe.getsockname()[0]
    except OSError:
        return False
    return not source.startswith(("fc", "fd", "fe80"))


def _ignore(_outcome: str) -> None:
    """Count nothing."""


def _interleave(families: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    mixed = chain.from_iterable(zip_longest(*families))
    return tuple(dict.fromkeys(address for address in mixed if address is not None))


def _worst(errors: set[Failure]) -> Failure:
    """Why there is no address: NXDOMAIN speaks for both families, then what leaves doubt."""
    for error in (Failure.CLOSED, Failure.NXDOMAIN, Failure.TIMEOUT, Failure.SERVFAIL):
        if error in errors:
            return error
    return Failure.NO_ADDRESS

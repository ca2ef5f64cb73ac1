"""``Answer`` and the cache that keeps it: bounded by count and by time, least recently used first.

There is no serve-stale (RFC 8767): an address that outlived its TTL is no longer known to be the
name's, and a firewall does not dial what it does not know.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egressproxy.names import DnsName


class Failure(StrEnum):
    """Why an answer has no addresses; ``NONE`` (empty, falsy) where it has some."""

    NONE = ""
    NXDOMAIN = "nxdomain"
    """The name does not exist."""
    NO_ADDRESS = "no_address"
    """The name exists and has neither A nor AAAA."""
    SERVFAIL = "servfail"
    """No server gave a usable answer: refused, unreachable, garbage."""
    TIMEOUT = "timeout"
    """No server answered within ``resolve_timeout_s``."""
    BUSY = "busy"
    """Too many names are being resolved; nothing was asked."""
    CLOSED = "closed"
    """The resolver was closed meanwhile."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a name.

    ``addresses`` are canonical texts of both families in the order to dial; empty exactly where
    ``error`` is set. ``expires_at`` is on the running loop's clock (monotonic seconds).
    """

    addresses: tuple[str, ...] = ()
    error: Failure = Failure.NONE
    expires_at: float = 0.0


class Cache:
    """At most ``capacity`` answers; the least recently asked for gives way."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._answers: OrderedDict[DnsName, Answer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, name: DnsName, now: float) -> Answer | None:
        """The answer, if it is known and has not expired."""
        answer = self._answers.get(name)
        if answer is None:
            return None
        if answer.expires_at <= now:
            del self._answers[name]
            return None
        self._answers.move_to_end(name)
        return answer

    def put(self, name: DnsName, answer: Answer) -> None:
        """Remember an answer, forgetting the least recently used one if need be."""
        self._answers[name] = answer
        self._answers.move_to_end(name)
        if len(self._answers) > self._capacity:
            self._answers.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._answers.clear()

"""``Pace``: bulk is fetched by the clock instead of packet by packet.

A stream of a gigabit a second wakes a proxy for every 64 KiB, and most of what it then costs is the
waking. So a direction that moves more than a buffer at a time is not told of by epoll any more, but
looked at every ``BEAT_S``, as interrupt moderation does in a network card. One beat without much to
move and epoll has it back; the end of a stream is told at once in any case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.kernel.timer import Beat
from egressproxy.planes.flow import Watched
from egressproxy.planes.reactor import IN

if TYPE_CHECKING:
    from collections.abc import Callable

    from egressproxy.planes.flow import Leg
    from egressproxy.planes.reactor import Reactor

BEAT_S: Final = 0.002
"""The longest that bytes of a bulk direction wait for nothing."""


class Pace:
    """The directions that are fetched by the clock; ``move`` is their next turn."""

    def __init__(self, reactor: Reactor, move: Callable[[Leg], None]) -> None:
        self._reactor = reactor
        self._move = move
        self._legs: set[Leg] = set()
        self._beat = Beat(BEAT_S)
        reactor.watch(Watched(self._beat.fd, self._on_beat), IN)

    def keeps(self, leg: Leg) -> bool:
        """Whether the next beat looks at a direction."""
        return leg in self._legs

    def keep(self, leg: Leg) -> None:
        """Fetch a direction at the next beat, and so on until ``leave``."""
        if leg in self._legs or not leg.watched:
            return
        if not self._legs:
            self._beat.start()
        self._legs.add(leg)
        self._reactor.mute(leg)

    def leave(self, leg: Leg) -> None:
        """Let epoll tell of a direction again; nothing happens where it does."""
        if leg in self._legs:
            self._legs.discard(leg)
            self._reactor.unmute(leg)
            if not self._legs:
                self._beat.stop()

    def close(self) -> None:
        """Let go of the clock; the flows are ended before."""
        self._beat.close()

    def _on_beat(self, _entry: Watched, _events: int) -> None:
        self._beat.hear()
        for leg in list(self._legs):
            if leg.watched and not leg.ended and not leg.in_pipe:
                leg.readable = True
                self._reactor.call(leg.flow, self._move, leg)
            else:  # over, or its peer takes nothing for longer than a beat
                self.leave(leg)

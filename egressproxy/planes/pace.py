"""``Pace``: bulk is told of in large pieces instead of packet by packet.

A stream of a gigabit a second wakes a proxy for every 64 KiB, and most of what it then costs is the
waking. So a direction that moves more than a buffer at a time is told of only when ``LOW_WATER``
octets wait, or when its sender may send no more (SO_RCVLOWAT, socket(7): the kernel looks at the
window, too). What a pause of the stream leaves below that mark is fetched by a clock, every
``BEAT_S``; its end is told at once. One beat with little to move, and all is told of again.
"""

from __future__ import annotations

from contextlib import suppress
from socket import SO_RCVLOWAT, SOL_SOCKET
from typing import TYPE_CHECKING, Final

from egressproxy.kernel.timer import Beat
from egressproxy.planes.flow import Watched
from egressproxy.planes.reactor import IN

if TYPE_CHECKING:
    from collections.abc import Callable

    from egressproxy.planes.flow import Leg
    from egressproxy.planes.reactor import Reactor

BEAT_S: Final = 0.002
"""The longest that the last octets before a pause of a stream wait."""
LOW_WATER: Final = 256 * 1024
_TURN_S: Final = 0.005
"""A beat takes no longer; who has not had a turn by then is owed one."""


class Pace:
    """The directions that are told of in large pieces; ``move`` is their next turn."""

    def __init__(self, reactor: Reactor, move: Callable[[Leg], None]) -> None:
        self._reactor = reactor
        self._move = move
        self._legs: dict[Leg, None] = {}
        self._beat = Beat(BEAT_S)
        reactor.watch(Watched(self._beat.fd, self._on_beat), IN)

    def keep(self, leg: Leg) -> None:
        """Tell of large pieces only, until ``leave``."""
        if leg in self._legs or not leg.watched:
            return
        if not self._legs:
            self._beat.start()
        self._legs[leg] = None
        _set_low_water(leg, LOW_WATER)

    def leave(self, leg: Leg) -> None:
        """Tell of everything again, and at once of what is there; nothing where that is so."""
        if leg in self._legs:
            del self._legs[leg]
            if leg.watched:
                _set_low_water(leg, 1)
            if not self._legs:
                self._beat.stop()

    def close(self) -> None:
        """Let go of the clock; the flows are ended before."""
        self._beat.close()

    def _on_beat(self, _entry: Watched, _events: int) -> None:
        reactor = self._reactor
        self._beat.hear()
        reactor.send()  # small moves do not wait for large ones
        ends = reactor.now + _TURN_S
        for leg in list(self._legs):
            if not leg.watched or leg.ended or leg.in_pipe:
                self.leave(leg)  # over, or its peer takes nothing for longer than a beat
                continue
            leg.readable = True
            if reactor.clock() < ends:
                reactor.call(leg.flow, self._move, leg)
            else:
                reactor.again(leg, self._move)


def _set_low_water(leg: Leg, octets: int) -> None:
    with suppress(OSError):  # the connection is reset, which is told of in any case
        leg.sock.setsockopt(SOL_SOCKET, SO_RCVLOWAT, octets)

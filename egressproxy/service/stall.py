"""Measures how long the loop could not run: what a reload cost the engine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

INTERVAL_S: Final = 0.001


class StallProbe:
    """From ``start`` to ``stop``, a timer that notes how late it was called at worst.

    The clock is not the loop's own: uvloop's is read once a turn, and so is blind to what a turn
    costs. The resolution is about a millisecond.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._longest_s = 0.0

    def start(self) -> None:
        """Begin anew."""
        self.stop()
        self._longest_s = 0.0
        self._arm()

    def stop(self) -> float:
        """The longest stall since ``start``, in seconds; what runs now is counted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._note()
        return self._longest_s

    def _arm(self) -> None:
        self._due = self._clock() + INTERVAL_S
        self._timer = self._loop.call_later(INTERVAL_S, self._tick)

    def _tick(self) -> None:
        self._note()
        self._arm()

    def _note(self) -> None:
        self._longest_s = max(self._longest_s, self._clock() - self._due)

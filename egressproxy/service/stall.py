"""Measures how long the loop could not run: what a reload cost the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

INTERVAL_S: Final = 0.001


class StallProbe:
    """From ``start`` to ``stop``, a timer that notes how late it was called at worst.

    A call that runs on the loop itself (a commit) is seen too: the timer that fell due meanwhile is
    late by what was left of it. The resolution is ``INTERVAL_S``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._longest_s = 0.0

    def start(self) -> None:
        """Begin anew."""
        self.stop()
        self._longest_s = 0.0
        self._arm()

    def stop(self) -> float:
        """The longest stall since ``start``, in seconds."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._note()
        return self._longest_s

    def _arm(self) -> None:
        self._due = self._loop.time() + INTERVAL_S
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._note()
        self._arm()

    def _note(self) -> None:
        self._longest_s = max(self._longest_s, self._loop.time() - self._due)

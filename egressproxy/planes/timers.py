"""Timers without a heap: one queue for each timeout, first armed first expired.

Every key of a queue waits equally long, so insertion order is the order of deadlines; arming,
re-arming and cancelling are one dict operation each. The clock is the engine's tick: a timeout
comes up to ``TICK_S`` late, never early. For long timeouts that each byte re-arms see ``idle``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from egressproxy.planes.dial import Attempt, Dial
    from egressproxy.planes.flow import Flow
    from egressproxy.settings import Settings

TICK_S: Final = 0.05
"""How often the engine's ``tick`` is to be called."""

K = TypeVar("K")


class TimerQueue(Generic[K]):
    """Keys that wait ``timeout_s`` each."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._deadlines: dict[K, float] = {}

    def __len__(self) -> int:
        return len(self._deadlines)

    def arm(self, key: K, now: float) -> None:
        """Let a key expire ``timeout_s`` from now; one that waits already waits anew."""
        deadlines = self._deadlines
        if key in deadlines:
            del deadlines[key]  # to the end
        deadlines[key] = now + self.timeout_s

    def cancel(self, key: K) -> None:
        """Let a key wait no more; nothing happens where it does not wait."""
        self._deadlines.pop(key, None)

    def expire(self, now: float) -> list[K]:
        """Take out the keys whose time has come, oldest first."""
        due = []
        for key, deadline in self._deadlines.items():
            if deadline > now:
                break
            due.append(key)
        for key in due:
            del self._deadlines[key]
        return due


class Timers:
    """The engine's queues. ``address`` is one connect, ``dial`` all connects of one dial."""

    def __init__(self, settings: Settings) -> None:
        self.hello: TimerQueue[Flow] = TimerQueue(settings.hello_timeout_s)
        self.silence: TimerQueue[Flow] = TimerQueue(settings.hello_timeout_s)
        self.farewell: TimerQueue[Flow] = TimerQueue(settings.refusal_drain_timeout_s)
        self.stagger: TimerQueue[Dial] = TimerQueue(settings.happy_eyeballs_delay_s)
        self.address: TimerQueue[Attempt] = TimerQueue(
            min(settings.dial_timeout_s, settings.dial_total_timeout_s)
        )
        self.dial: TimerQueue[Dial] = TimerQueue(settings.dial_total_timeout_s)

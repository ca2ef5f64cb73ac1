"""Signs of life for the service manager (``WatchdogSec=``, sd_watchdog_enabled(3)).

They go out only while every worker answers, so that a service whose supervisor runs and whose
workers do not is restarted, too. A worker that dies or hangs is replaced by the supervisor itself;
that has to fit into the watchdog's time.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from egressproxy.service.journal import journal
from egressproxy.service.notify import notify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REPLACEMENT_S: Final = 6.0
"""For the successor of a hung worker: its delay, and its start."""
_SIGNS: Final = 4
_MAX_DIGITS: Final = 18


def watchdog_s(environment: Mapping[str, str]) -> float:
    """How long the manager waits for a sign of life; 0 where it waits for none of ours."""
    text = environment.get("WATCHDOG_USEC", "")
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(text) / 1e6 if is_number and is_ours else 0.0


async def feed_watchdog(
    patience_s: float, silence_s: Callable[[], float], *, worker_timeout_s: float
) -> None:
    """Send a sign of life four times in ``patience_s``, for ever; none while there is silence.

    Args:
        patience_s: the manager's; 0 for none, and then nothing is sent.
        silence_s: for how long some worker has not answered; allowed up to ``patience_s``.
        worker_timeout_s: when the supervisor itself replaces a worker.
    """
    if not patience_s:
        return
    if patience_s < worker_timeout_s + REPLACEMENT_S:
        journal().warning(
            "the watchdog is faster than the supervisor: a worker that hangs ends the service",
            watchdog_s=patience_s,
            worker_timeout_s=worker_timeout_s,
            hint=f"WatchdogSec={worker_timeout_s + 2 * REPLACEMENT_S:g} or more",
        )
    is_told = False
    while True:
        silence = silence_s()
        if silence <= patience_s:
            notify("WATCHDOG=1")
        elif not is_told:
            journal().error("a worker does not answer, no sign of life", seconds=round(silence, 1))
        is_told = silence > patience_s
        await asyncio.sleep(patience_s / _SIGNS)

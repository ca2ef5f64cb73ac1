"""Garbage collection of a worker: nothing automatic, and never a pass over everything.

The engine makes no reference cycles on a flow's path, so reference counting frees flows. What
cycles there are (tracebacks, asyncio's own) are young and few. Automatic collection would pass over
every open flow at a moment of its own choosing; here the young generation is collected when it has
grown, on a timer, and what a start or a reload has built is frozen out of later passes.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG_OBJECTS: Final = 10_000
"""A pass over so many takes about a millisecond."""
YOUNG_PASSES: Final = 16
"""So many young passes and then one over their survivors."""


class Garbage:
    """Collects when asked to, in bounded steps."""

    def __init__(self) -> None:
        self._passes = 0

    def take_over(self) -> None:
        """Switch automatic collection off and freeze what the start has built."""
        gc.disable()
        gc.collect()
        gc.freeze()

    def turn(self) -> None:
        """Collect if the young generation has grown; for a timer of a quarter second or so."""
        if gc.get_count()[0] < YOUNG_OBJECTS:
            return
        self._passes += 1
        gc.collect(1 if self._passes % YOUNG_PASSES == 0 else 0)

    def built(self) -> None:
        """A ruleset has been built: exempt it from later passes (it is freed by its last user).

        Young cycles go first: once frozen they would stay for ever, some with every reload. The
        last pass has nothing left to look at, but it alone empties CPython's free lists, which keep
        up to 2,000 tuples of each size and are filled by every unpickled policy.
        """
        gc.collect(1)
        gc.freeze()
        gc.collect()

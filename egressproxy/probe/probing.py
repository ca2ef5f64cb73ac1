"""All names of a policy, so many at once, and all within one time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from egressproxy.probe.attempt import Attempt, attempt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.policy.openings import Opening
    from egressproxy.probe.attempt import Means


async def probe(
    opened: Sequence[Opening], means: Means, *, at_once: int, deadline_s: float
) -> tuple[Attempt, ...]:
    """Try every opening; the results are in their order.

    What is not done after ``deadline_s`` has the step ``wait``.
    """
    results = [Attempt(opening=opening) for opening in opened]
    gate = asyncio.Semaphore(at_once)

    async def one(place: int) -> None:
        async with gate:
            results[place] = await attempt(opened[place], means)

    try:
        async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
            for place, opening in enumerate(opened):
                group.create_task(one(place), name=f"probe {opening.name}:{opening.port}")
    except TimeoutError:
        pass
    return tuple(results)

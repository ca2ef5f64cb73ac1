"""``Resolver`` for coroutines that want answers, as commands do; flows use its callbacks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from egressproxy.resolve.cache import Answer, Failure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from egressproxy.names import DnsName
    from egressproxy.resolve.resolver import Resolver


async def look_up(resolver: Resolver, name: DnsName) -> Answer:
    """The whole answer, both families; the resolver's own timeout bounds the wait."""
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def deliver(answer: Answer) -> None:
        if not future.done():
            future.set_result(answer)

    resolver.resolve(name, deliver, whole=True)
    return await future


async def look_up_all(
    resolver: Resolver, names: Iterable[DnsName], *, at_once: int, deadline_s: float
) -> dict[DnsName, Answer]:
    """Answers for many names, ``at_once`` of them in flight.

    What is not known after ``deadline_s`` counts as ``timeout``.
    """
    found = {name: Answer(error=Failure.TIMEOUT) for name in names}
    gate = asyncio.Semaphore(at_once)

    async def one(name: DnsName) -> None:
        async with gate:
            found[name] = await look_up(resolver, name)

    try:
        async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
            for name in tuple(found):
                group.create_task(one(name), name=f"look up {name}")
    except TimeoutError:
        pass
    return found

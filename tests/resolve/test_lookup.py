from __future__ import annotations

import asyncio

from egressproxy.names import DnsName
from egressproxy.resolve.cache import Failure
from egressproxy.resolve.lookup import look_up, look_up_all
from egressproxy.resolve.resolver import Resolver
from egressproxy.settings import Settings
from tests.resolve.conftest import DnsServer

A, B, GONE, SLOW = map(DnsName, ("a.test", "b.test", "gone.test", "slow.test"))


async def _some() -> None:
    async with DnsServer() as server:
        server.add("a.test", "A", "198.51.100.7")
        server.add("a.test", "AAAA", "2001:db8::7")
        server.add("b.test", "A", "198.51.100.8")
        for rtype in ("A", "AAAA"):
            server.script("slow.test", rtype).is_silent = True
        resolver = Resolver(Settings(resolve_timeout_s=30), servers=[server.address])
        try:
            assert set((await look_up(resolver, A)).addresses) == {"198.51.100.7", "2001:db8::7"}
            names = [A, B, GONE]
            found = await look_up_all(resolver, names, at_once=2, deadline_s=10)
            assert list(found) == names
            assert found[B].addresses == ("198.51.100.8",)
            assert found[GONE].error is Failure.NXDOMAIN
            late = await look_up_all(resolver, [SLOW, A], at_once=1, deadline_s=0.05)
            assert [answer.error for answer in late.values()] == [Failure.TIMEOUT] * 2
        finally:
            await resolver.aclose()


def test_answers_for_coroutines() -> None:
    asyncio.run(_some())

"""Many names: in order, so many at once, and not for ever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from egressproxy.names import DnsName
from egressproxy.policy.openings import Opening
from egressproxy.ports import Protocol
from egressproxy.probe.attempt import Step
from egressproxy.probe.probing import probe
from tests.policy.building import rule
from tests.probe.servers import means, server

if TYPE_CHECKING:
    from egressproxy.probe.attempt import Attempt

NAMES = tuple(DnsName(f"n{number}.test") for number in range(6))


def opened(port: int) -> list[Opening]:
    made = rule("r", *NAMES)
    return [Opening(name, Protocol.HTTP, port, made, False) for name in NAMES]


def test_so_many_at_once_and_in_order() -> None:
    open_now = most = 0

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await reader.readuntil(b"\r\n\r\n")
        open_now -= 1
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await reader.read()

    async def run() -> tuple[Attempt, ...]:
        async with (
            server(session) as port,
            means(dict.fromkeys(NAMES, ("127.0.0.1",))) as given,
        ):
            return await probe(opened(port), given, at_once=2, deadline_s=30)

    found = asyncio.run(run())
    assert [each.opening.name for each in found] == list(NAMES)
    assert {each.step for each in found} == {Step.DONE}
    assert most <= 2


def test_a_deadline() -> None:
    async def session(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def run() -> tuple[Attempt, ...]:
        async with (
            server(session) as port,
            means(dict.fromkeys(NAMES, ("127.0.0.1",))) as given,
        ):
            return await probe(opened(port), given, at_once=2, deadline_s=0.3)

    assert {each.step for each in asyncio.run(run())} == {Step.WAIT}

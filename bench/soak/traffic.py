"""``python -m bench.soak.traffic ADDRESS PORT FOLDER BUSY``: the soak's clients, in one process.

Busy tunnels move blocks both ways, one in ten of them large ones; short connections of every kind
come and go; some tunnels are for a name that only every other policy allows, and come again when a
reload has ended them. FOLDER has the ClientHellos. A line ``ready`` tells that the busy ones are
open; at the end of stdin all come to an orderly end, and a tally is printed as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from bench.soak.exchanges import LIMIT_S, SHORT, Connection, FaultError, Place
from bench.soak.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from bench.soak.exchanges import Exchange

HELLOS: Final = ("allowed", "denied", "flipping")
FLIPPING: Final = 10
"""Tunnels that every other reload ends."""
FLIPPED_PAUSE_S: Final = 1.0
SMALL: Final = (4096, 0.5)
"""Octets of a block, and seconds between two."""
LARGE: Final = (1 << 18, 2.0)
LARGE_EVERY: Final = 10


class Traffic:
    """All of it; ``run`` once."""

    def __init__(self, place: Place, busy: int) -> None:
        self._place = place
        self._busy = busy
        self._open = 0
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self.tally = Tally()

    async def run(self) -> None:
        """Until stdin ends."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._busy):
                group.create_task(self._guarded("busy", self._hold(number)))
            await self._ready.wait()
            for number in range(FLIPPING):
                group.create_task(self._flip(number))
            for exchange, rate in SHORT.items():
                group.create_task(self._come_and_go(group, exchange, 1 / rate))
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)
            self._stop.set()

    async def _hold(self, number: int) -> None:
        """A busy tunnel, until the end."""
        octets, pause_s = SMALL if number % LARGE_EVERY else LARGE
        async with Connection(self._place) as connection:
            connection.writer.write(self._place.hellos["allowed"])
            serial = number
            while not self._stop.is_set():
                async with asyncio.timeout(LIMIT_S):
                    await connection.echoed(serial * 7919, octets)
                self.tally.octets += octets
                self._opened(serial == number)
                serial += self._busy
                await self._pause(pause_s)
            await connection.finish()

    def _opened(self, is_first: bool) -> None:
        self._open += is_first
        if self._open == self._busy:
            self._ready.set()

    async def _flip(self, number: int) -> None:
        """A tunnel that the policy ends now and then, and that comes again."""
        while not self._stop.is_set():
            try:
                async with Connection(self._place) as connection:
                    connection.writer.write(self._place.hellos["flipping"])
                    while not self._stop.is_set():
                        await connection.echoed(number, SMALL[0])
                        self.tally.done["flipping blocks"] += 1
                        await self._pause(FLIPPED_PAUSE_S)
            except (OSError, FaultError):
                self.tally.done["flipping ended or refused"] += 1
                await self._pause(FLIPPED_PAUSE_S)

    async def _come_and_go(
        self, group: asyncio.TaskGroup, exchange: Exchange, pause_s: float
    ) -> None:
        serial = 0
        while not self._stop.is_set():
            serial += 1
            name = exchange.__name__
            group.create_task(self._guarded(name, exchange(self._place, self.tally, serial)))
            await self._pause(pause_s)

    async def _guarded(self, kind: str, work: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(None if kind == "busy" else LIMIT_S):
                await work
        except (OSError, TimeoutError, FaultError) as error:
            self.tally.fault(kind, repr(error))
        else:
            self.tally.done[kind] += 1

    async def _pause(self, seconds: float) -> None:
        """Wait, or less at the end."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return


async def main(address: str, port: int, folder: Path, busy: int) -> None:
    """Run it and print the tally."""
    hellos = {key: (folder / f"{key}.hello").read_bytes() for key in HELLOS}
    traffic = Traffic(Place(address, port, hellos), busy)
    await traffic.run()
    print(json.dumps(traffic.tally.view()), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])))

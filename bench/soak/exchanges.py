"""What a client of the soak does in one connection, well-behaved or not, and what it must see.

Each returns when all went as it should and raises ``FaultError`` when not.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.soak.tally import Tally

LIMIT_S: Final = 30.0
"""Longer waits for nothing; the hello's own timeout is 5 s."""
NOISE: Final = os.urandom(1 << 20)
"""Blocks are pieces of it from a place that changes, so that a stale or foreign one is noticed."""
SHORT_OCTETS: Final = 4096
ALERT: Final = 0x15
"""The content type of a TLS alert (RFC 8446, section 5.1)."""
_GONE: Final = (ConnectionResetError, BrokenPipeError)


class FaultError(Exception):
    """A connection did not go as it should; the text says how."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where connections go, and the ClientHellos ``allowed``, ``denied`` and ``flipping``."""

    address: str
    port: int
    hellos: Mapping[str, bytes]


class Connection:
    """One connection, opened and always closed by ``async with``."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def __aenter__(self) -> Connection:
        place = self._place
        self.reader, self.writer = await asyncio.open_connection(place.address, place.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            return

    async def echoed(self, start: int, octets: int) -> None:
        """Send a block and get the same back."""
        start %= len(NOISE) - octets
        block = NOISE[start : start + octets]
        if self.writer.is_closing():  # uvloop's own error for it is a RuntimeError
            raise FaultError("it was ended")
        self.writer.write(block)
        try:
            if await self.reader.readexactly(octets) != block:
                raise FaultError("wrong octets came back")
        except asyncio.IncompleteReadError as error:
            raise FaultError(f"it ended after {len(error.partial)} of {octets} octets") from error

    async def finish(self) -> None:
        """FIN, answered by FIN and nothing else."""
        self.writer.write_eof()
        if rest := await self.reader.read():
            raise FaultError(f"{len(rest)} octets too many")

    async def rest(self) -> bytes:
        """All until the far end closes, by FIN or RST."""
        try:
            return await self.reader.read()
        except _GONE:
            return b""


async def allowed(place: Place, tally: Tally, serial: int) -> None:
    """An allowed name; one block; an orderly end."""
    async with Connection(place) as connection:
        connection.writer.write(place.hellos["allowed"])
        await connection.echoed(serial, SHORT_OCTETS)
        await connection.finish()
        tally.octets += SHORT_OCTETS


async def aborted(place: Place, tally: Tally, serial: int) -> None:
    """An allowed name; one block; the client's RST."""
    async with Connection(place) as connection:
        connection.writer.write(place.hellos["allowed"])
        await connection.echoed(serial, SHORT_OCTETS)
        tally.octets += SHORT_OCTETS
        own: socket.socket = connection.writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.writer.transport.abort()


async def denied(place: Place, _: Tally, __: int) -> None:
    """A denied name is told so by an alert."""
    async with Connection(place) as connection:
        connection.writer.write(place.hellos["denied"])
        answer = await connection.rest()
        if answer[:1] != bytes((ALERT,)):
            raise FaultError(f"no alert but {answer[:20]!r}")


async def garbage(place: Place, _: Tally, __: int) -> None:
    """Neither TLS nor HTTP: closed, and nothing of the server's seen."""
    await _refused(place, b"\xff" * 100)


async def http(place: Place, _: Tally, __: int) -> None:
    """A request for a denied host is refused, whatever with."""
    await _refused(place, b"GET / HTTP/1.1\r\nHost: exfiltration.example.net\r\n\r\n")


async def silent(place: Place, _: Tally, __: int) -> None:
    """Half a hello and no more: the gateway's timeout closes it."""
    await _refused(place, place.hellos["allowed"][:200])


async def left(place: Place, _: Tally, __: int) -> None:
    """Half a hello, and the client goes."""
    async with Connection(place) as connection:
        connection.writer.write(place.hellos["allowed"][:200])


async def _refused(place: Place, sent: bytes) -> None:
    async with Connection(place) as connection:
        connection.writer.write(sent)
        if sent in await connection.rest():
            raise FaultError("it was let through")


Exchange = Callable[["Place", "Tally", int], Coroutine[Any, Any, None]]

SHORT: Final[Mapping[Exchange, float]] = {
    allowed: 3.0,
    aborted: 1.0,
    denied: 2.0,
    garbage: 0.5,
    http: 0.5,
    silent: 0.5,
    left: 0.5,
}
"""How many of each a second."""

"""``python -m bench.soak.echo ADDRESS PORT``: sends back every byte that follows a ClientHello.

Prints ``ready`` when it listens, and ends with its stdin.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final, cast

import uvloop

_RECORD_HEADER: Final = 5
_HIGH_WATER: Final = 1 << 20


class Echo(asyncio.Protocol):
    """One connection; the hello is one TLS record (RFC 8446, section 5.1)."""

    def __init__(self) -> None:
        self._head = b""
        self._is_echoing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what an unread echo may hold."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        """Skip the hello, send back the rest."""
        if not self._is_echoing:
            self._head += data
            if len(self._head) < _RECORD_HEADER:
                return
            end = _RECORD_HEADER + int.from_bytes(self._head[3:_RECORD_HEADER], "big")
            if len(self._head) < end:
                return
            data, self._head, self._is_echoing = self._head[end:], b"", True
        if data:
            self._transport.write(data)

    def pause_writing(self) -> None:
        """The client does not read."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._transport.resume_reading()


async def main(address: str, port: int) -> None:
    """Serve until stdin ends."""
    loop = asyncio.get_running_loop()
    async with await loop.create_server(Echo, address, port, backlog=4096):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))

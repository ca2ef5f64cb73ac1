"""Servers that send back what they get: over TLS for konnectivity's ALPN, byte-exact, and UDP."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.events import EventWriter

RESET_COMMAND: Final = b"!reset"
"""A client that ends its bytes with this gets an RST."""
TRAILER: Final = b"EOF "
_HIGH_WATER: Final = 1 << 20


class Greeter(asyncio.Protocol):
    """Says first what it knows of the connection (one JSON line), then sends everything back."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(json.dumps(self._facts).encode() + b"\n")

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class ByteEcho(asyncio.Protocol):
    """Sends back every byte; after the client's FIN a trailer with their number, then FIN.

    How it ended (``eof``, ``reset``) and the SHA-256 of what came go to the event log.
    """

    def __init__(self, events: EventWriter, port: int) -> None:
        self._events = events
        self._port = port
        self._digest = hashlib.sha256()
        self._count = 0
        self._end = "closed"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        self._digest.update(data)
        self._count += len(data)
        if data.endswith(RESET_COMMAND):
            reset(self._transport)
            return
        self._transport.write(data)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def eof_received(self) -> bool:
        self._end = "eof"
        self._transport.write(TRAILER + str(self._count).encode() + b"\n")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        end = "reset" if isinstance(exc, ConnectionResetError) else self._end
        self._events.write(
            "echo", port=self._port, bytes=self._count, sha256=self._digest.hexdigest(), end=end
        )


class DatagramEcho(asyncio.DatagramProtocol):
    """Sends each datagram back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)


def reset(transport: asyncio.Transport) -> None:
    """Close with RST instead of FIN (SO_LINGER with zero seconds, socket(7))."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()

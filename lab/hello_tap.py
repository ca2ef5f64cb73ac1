"""Look at the ClientHello on an accepted socket without taking it: MSG_PEEK, then hand over.

Only lengths are read here (RFC 8446 sections 4 and 5.1), so that the lab's word on what arrived is
independent of the product's parser.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

MAX_PEEK_BYTES: Final = 1 << 17
_HANDSHAKE: Final = 22
_RECORD_HEADER: Final = 5
_HANDSHAKE_HEADER: Final = 4


def missing_bytes(data: bytes) -> int:
    """How many bytes at least are missing until the records of the first message are whole."""
    payload = 0
    offset = 0
    message = _HANDSHAKE_HEADER
    first = b""
    while payload < message:
        header = data[offset : offset + _RECORD_HEADER]
        if len(header) < _RECORD_HEADER:
            return _RECORD_HEADER - len(header)
        if header[0] != _HANDSHAKE:
            return 0
        length = int.from_bytes(header[3:], "big")
        offset += _RECORD_HEADER
        if len(data) < offset + length:
            return offset + length - len(data)
        first += data[offset : offset + min(length, _HANDSHAKE_HEADER)]
        payload += length
        offset += length
        if len(first) >= _HANDSHAKE_HEADER:
            message = _HANDSHAKE_HEADER + int.from_bytes(first[1:_HANDSHAKE_HEADER], "big")
    return 0


def hello_size(data: bytes) -> int:
    """Bytes of the records that carry the first handshake message; 0 where it is not whole."""
    for end in _record_ends(data):
        if missing_bytes(data[:end]) == 0:
            return end
    return 0


async def peek_hello(connection: socket.socket) -> bytes:
    """The ClientHello's records as they arrived, left in the socket; less where it ends early."""
    loop = asyncio.get_running_loop()
    wanted = 1
    while True:
        # With a low-water mark the socket is readable only when enough has come: no busy loop.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
        await _readable(loop, connection)
        data = connection.recv(MAX_PEEK_BYTES, socket.MSG_PEEK)
        missing = missing_bytes(data)
        if missing == 0 or len(data) < wanted:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            return data[: hello_size(data)] if missing == 0 else data
        wanted = len(data) + missing


async def _readable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _record_ends(data: bytes) -> list[int]:
    ends: list[int] = []
    offset = 0
    while offset + _RECORD_HEADER <= len(data):
        offset += _RECORD_HEADER + int.from_bytes(data[offset + 3 : offset + 5], "big")
        ends.append(offset)
    return ends

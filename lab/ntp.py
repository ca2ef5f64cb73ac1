"""The time over UDP, both ends, as far as a client needs it once (SNTP, RFC 5905 section 14).

``python -m lab.ntp NAME`` asks every address of a name and says what it answered; it ends with 1
where one does not.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from lab.events import EventWriter

PORT: Final = 123
STRATUM: Final = 2
_HEADER: Final = struct.Struct("!BBbbIII8s8s8s8s")
"""RFC 5905 figure 8: the header without extensions."""
_VERSION: Final = 4
_CLIENT: Final = 3
_SERVER: Final = 4
_UNIX_EPOCH: Final = 2208988800
"""Seconds from 1900, where NTP begins, to 1970."""
_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: its stratum, and how far its clock is ahead of ours."""

    stratum: int
    offset_s: float


def request(now: float) -> bytes:
    """A client's question; its transmit time is the server's proof of having read it."""
    nothing = bytes(8)
    first = _VERSION << 3 | _CLIENT
    return _HEADER.pack(first, 0, 0, 0, 0, 0, 0, nothing, nothing, nothing, _stamp(now))


def response(question: bytes, now: float) -> bytes:
    """A server's answer.

    Raises:
        ValueError: that is no client's question.
    """
    if len(question) < _HEADER.size or question[0] & 7 != _CLIENT:
        raise ValueError("no NTP question")
    asked = _HEADER.unpack_from(question)[-1]
    first, at = _VERSION << 3 | _SERVER, _stamp(now)
    return _HEADER.pack(first, STRATUM, 6, -20, 0, 0, 0x4C414221, at, asked, at, at)


def read_response(data: bytes, question: bytes, now: float) -> Answer:
    """What a client gets out of an answer to its question.

    Raises:
        ValueError: it is none.
    """
    if len(data) < _HEADER.size or data[0] & 7 != _SERVER:
        raise ValueError("no NTP answer")
    fields = _HEADER.unpack_from(data)
    if fields[8] != question[-8:]:
        raise ValueError("the answer to another question")
    return Answer(fields[1], _seconds(fields[10]) - now)


def ask(connected: socket.socket) -> Answer:
    """Ask the server that a UDP socket is connected to.

    Raises:
        OSError: no answer came in time, or that nobody is there.
        ValueError: the answer is none.
    """
    question = request(time.time())
    connected.send(question)
    return read_response(connected.recv(1024), question, time.time())


class Server(asyncio.DatagramProtocol):
    """Answers every client's question; who asked goes to the event log."""

    def __init__(self, events: EventWriter) -> None:
        self._events = events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            answer = response(data, time.time())
        except ValueError:
            return
        self._events.write("ntp", peer=addr[0])
        self._transport.sendto(answer, addr)


def _stamp(seconds: float) -> bytes:
    return struct.pack("!Q", int((seconds + _UNIX_EPOCH) * (1 << 32)))


def _seconds(stamp: bytes) -> float:
    number: int = struct.unpack("!Q", stamp)[0]
    return number / (1 << 32) - _UNIX_EPOCH


def _main(name: str) -> int:
    failures = 0
    for family, kind, *_, place in socket.getaddrinfo(name, PORT, type=socket.SOCK_DGRAM):
        with socket.socket(family, kind) as asking:
            asking.settimeout(_TIMEOUT_S)
            try:
                asking.connect(place)
                answer = ask(asking)
            except (OSError, ValueError) as error:
                failures += 1
                said = f"no answer: {error}"
            else:
                said = f"stratum {answer.stratum}, offset {answer.offset_s:+.3f} s"
        sys.stdout.write(f"{name} {place[0]}: {said}\n")
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))

"""A real DNS server on loopback, scripted name by name."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    RunLoop = Callable[[Coroutine[Any, Any, "T"]], "T"]

T = TypeVar("T")


@dataclass
class Script:
    """What the server does when asked for one name and type."""

    records: list[dns.rrset.RRset] = field(default_factory=list)
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    gate: asyncio.Event | None = None  # answers once it is set
    is_silent: bool = False
    is_truncated: bool = False  # over UDP
    raw: bytes | None = None  # instead of a message; the id is put in front


class DnsServer:
    """UDP and TCP on one port of 127.0.0.1; ``seen`` is every (name, type, transport) asked."""

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[tuple[str, str, str]] = []
        self._scripts: dict[tuple[str, str], Script] = {}
        self._stack = AsyncExitStack()
        self._tasks: asyncio.TaskGroup

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def script(self, name: str, rtype: str) -> Script:
        return self._scripts.setdefault((name, rtype), Script())

    def add(self, name: str, rtype: str, *values: str, ttl: int = 60, at: str = "") -> Script:
        """Records of ``at`` (of ``name`` itself by default) in the answer for a name and type."""
        script = self.script(name, rtype)
        kind = "CNAME" if values and not values[0][0].isdigit() and ":" not in values[0] else rtype
        script.records.append(dns.rrset.from_text(f"{at or name}.", ttl, "IN", kind, *values))
        return script

    def both(self, name: str, *, rcode: dns.rcode.Rcode) -> None:
        for rtype in ("A", "AAAA"):
            self.script(name, rtype).rcode = rcode

    def asked(self, name: str, rtype: str = "A") -> int:
        return sum(1 for seen in self.seen if seen[:2] == (name, rtype))

    async def __aenter__(self) -> DnsServer:
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        tcp = socket.create_server(("127.0.0.1", 0))
        self.port = tcp.getsockname()[1]
        loop = asyncio.get_running_loop()
        udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=("127.0.0.1", self.port)
        )
        server = await loop.create_server(lambda: _Stream(self), sock=tcp)
        self._stack.callback(server.close)
        self._stack.callback(udp.close)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()
        await asyncio.sleep(0)

    def handle(self, query: bytes, transport: str, send: Callable[[bytes], None]) -> None:
        message = dns.message.from_wire(query)
        question = message.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        rtype = dns.rdatatype.to_text(question.rdtype)
        self.seen.append((name, rtype, transport))
        script = self._scripts.get((name, rtype))
        if script is None:
            known = any(key[0] == name for key in self._scripts)
            script = Script(rcode=dns.rcode.NOERROR if known else dns.rcode.NXDOMAIN)
        if script.is_silent:
            return
        answer = _answer(message, script, transport)
        if script.gate is None:
            send(answer)
        else:
            self._tasks.create_task(_send_later(script.gate, send, answer))


async def _send_later(gate: asyncio.Event, send: Callable[[bytes], None], answer: bytes) -> None:
    await gate.wait()
    send(answer)


def _answer(query: dns.message.Message, script: Script, transport: str) -> bytes:
    if script.raw is not None:
        return struct.pack("!H", query.id) + script.raw
    response = dns.message.make_response(query)
    response.set_rcode(script.rcode)
    if script.is_truncated and transport == "udp":
        response.flags |= dns.flags.TC
    else:
        response.answer.extend(script.records)
    return response.to_wire(max_size=65535)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._server.handle(data, "udp", lambda answer: self._transport.sendto(answer, addr))


class _Stream(asyncio.Protocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._data = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= 2 and len(self._data) >= 2 + int.from_bytes(self._data[:2]):
            size = int.from_bytes(self._data[:2])
            query, self._data = self._data[2 : 2 + size], self._data[2 + size :]
            self._server.handle(query, "tcp", self._send)

    def _send(self, answer: bytes) -> None:
        self._transport.write(len(answer).to_bytes(2) + answer)


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> RunLoop[Any]:
    """Both loops that the service can run on."""
    loop: RunLoop[Any] = request.param
    return loop


@pytest.fixture
def dns_server() -> DnsServer:
    """To be entered in the loop of the test."""
    return DnsServer()

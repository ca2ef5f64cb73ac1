"""HTTP/2 for the lab's sites: GET only, one page a stream, flow control respected."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError

from lab.web import page

if TYPE_CHECKING:
    from lab.events import EventWriter
    from lab.web import Connection


class Http2(asyncio.Protocol):
    """One HTTP/2 connection on top of an established TLS one (RFC 9113)."""

    def __init__(self, connection: Connection, events: EventWriter) -> None:
        self._facts = connection
        self._events = events
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._bodies: dict[int, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._h2.initiate_connection()
        self._send()

    def data_received(self, data: bytes) -> None:
        try:
            received = self._h2.receive_data(data)
        except ProtocolError:
            self._send()
            self._close()
            return
        for event in received:
            match event:
                case RequestReceived(stream_id=int(stream), headers=headers):
                    self._answer(stream, {str(name): str(value) for name, value in headers or ()})
                case DataReceived(stream_id=int(stream), flow_controlled_length=int(length)):
                    self._h2.acknowledge_received_data(length, stream)
                case StreamReset(stream_id=int(stream)):
                    self._bodies.pop(stream, None)
                case WindowUpdated():
                    self._pump()
                case _:
                    pass
        self._send()

    def _answer(self, stream: int, headers: dict[str, str]) -> None:
        host, path = headers.get(":authority", ""), headers.get(":path", "/")
        self._facts.requests += 1
        self._events.write(
            "request",
            host=host,
            method=headers.get(":method"),
            path=path,
            site=self._facts.site,
            peer=self._facts.peer,
        )
        kind, body = page(host, path, self._facts)
        self._h2.send_headers(
            stream,
            [(":status", "200"), ("content-type", kind), ("content-length", str(len(body)))],
        )
        self._bodies[stream] = body
        self._pump()

    def _pump(self) -> None:
        """Send of each waiting body what its window takes."""
        for stream, body in list(self._bodies.items()):
            size = self._h2.max_outbound_frame_size
            while body and (window := self._h2.local_flow_control_window(stream)) > 0:
                piece = body[: min(window, size)]
                body = body[len(piece) :]
                self._h2.send_data(stream, piece, end_stream=not body)
            if body:
                self._bodies[stream] = body
            else:
                del self._bodies[stream]

    def _send(self) -> None:
        if data := self._h2.data_to_send():
            self._transport.write(data)

    def _close(self) -> None:
        self._transport.close()

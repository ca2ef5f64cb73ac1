"""An upstream's connection: requests out, responses in, framed by one h11 object.

What an allowed server sends is read by h11 as it stands (bare LF and obs-fold are forgiven) and
written anew, so a client never sees bytes that two readers could cut differently. Refused, as 502:
framing that contradicts itself (RFC 9112 section 6.3), a protocol switch nobody asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import h11

from egressproxy.errors import WireError
from egressproxy.wire.http_fields import Fields, response_fields, tokens, trailer_fields
from egressproxy.wire.http_request import RequestHead

_NO_CONTENT = 204
_SWITCH = 101


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The facts of one response head.

    ``fields`` are end-to-end; Content-Length is among them, Transfer-Encoding is not: who sends
    the response frames it. ``is_interim`` is any 1xx, 101 (websocket, or it raised) included.
    """

    status: int
    reason: bytes
    fields: Fields

    @property
    def is_interim(self) -> bool:
        """Whether another response head follows, or a tunnel (101)."""
        return self.status < 200

    @property
    def is_switch(self) -> bool:
        """Whether the connection becomes a websocket."""
        return self.status == _SWITCH


class ResponseEnd(NamedTuple):
    """The response is complete."""

    trailers: Fields


ResponseEvent: TypeAlias = ResponseHead | bytes | ResponseEnd


class Upstream:
    """One connection to an upstream, over all requests that are sent on it.

    Args:
        max_head_bytes: of one response head.
    """

    __slots__ = ("_asked_websocket", "_connection", "_has_answered")

    def __init__(self, *, max_head_bytes: int) -> None:
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=max_head_bytes)
        self._asked_websocket = False
        self._has_answered = False

    @property
    def can_go_on(self) -> bool:
        """Whether another request may be sent: both sides complete, not a byte too many, no FIN."""
        connection = self._connection
        return (
            connection.our_state is h11.DONE
            and connection.their_state is h11.DONE
            and connection.trailing_data == (b"", False)
        )

    @property
    def has_answered(self) -> bool:
        """Whether any byte came since the last request was sent."""
        return self._has_answered

    def send_head(self, head: RequestHead) -> list[bytes]:
        """A request head, written from facts alone."""
        if self._connection.our_state is h11.DONE:
            self._connection.start_next_cycle()
        self._has_answered = False
        self._asked_websocket = head.is_websocket
        fields: Fields = [(b"Host", head.host), *head.fields]
        if head.is_chunked:
            fields.append((b"Transfer-Encoding", b"chunked"))
        elif head.content_length is not None:
            fields.append((b"Content-Length", b"%d" % head.content_length))
        if head.is_websocket:
            fields += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        elif head.is_last:
            fields.append((b"Connection", b"close"))
        return self._send(h11.Request(method=head.method, target=head.target, headers=fields))

    def send_body(self, data: bytes) -> list[bytes]:
        """Body bytes of the request."""
        return self._send(h11.Data(data=data))

    def send_end(self, trailers: Fields) -> list[bytes]:
        """The end of the request."""
        return self._send(h11.EndOfMessage(headers=trailers))

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the upstream; never empty."""
        self._has_answered = True
        self._connection.receive_data(data)  # type: ignore[arg-type]  # copied by += at once

    def feed_eof(self) -> None:
        """The upstream closed its sending half: the end of a response framed by close."""
        self._connection.receive_data(b"")

    def next_event(self) -> ResponseEvent | None:
        """The next event; ``None`` is need more.

        Raises:
            WireError: no response can come of this, or none that is complete.
        """
        try:
            event = self._connection.next_event()
        except h11.RemoteProtocolError as error:
            raise _malformed(str(error).partition(":")[0]) from error
        if type(event) is h11.Data:
            return event.data
        if type(event) is h11.EndOfMessage:
            return ResponseEnd(trailer_fields(event.headers.raw_items()))
        if type(event) is h11.Response or type(event) is h11.InformationalResponse:
            return self._head(event)
        return None

    def take_rest(self) -> bytes:
        """What followed the 101 of a websocket."""
        return self._connection.trailing_data[0]

    def _head(self, event: h11.Response | h11.InformationalResponse) -> ResponseHead:
        names = [name for name, _ in event.headers]
        has_coding = b"transfer-encoding" in names
        if has_coding and (b"content-length" in names or event.http_version != b"1.1"):
            raise _malformed("Transfer-Encoding beside Content-Length, or in HTTP/1.0")
        if event.status_code == _SWITCH and not self._is_websocket_switch(event):
            raise _malformed("a switch to a protocol that was not asked for")
        connection = tokens(value for name, value in event.headers if name == b"connection")
        fields = response_fields(event.headers.raw_items(), connection)
        if event.status_code < 200 or event.status_code == _NO_CONTENT:
            fields = [field for field in fields if field[0].lower() != b"content-length"]
        return ResponseHead(event.status_code, event.reason, fields)

    def _is_websocket_switch(self, event: h11.InformationalResponse | h11.Response) -> bool:
        upgrade = tokens(value for name, value in event.headers if name == b"upgrade")
        return self._asked_websocket and upgrade == [b"websocket"]

    def _send(self, event: h11.Event) -> list[bytes]:
        return self._connection.send_with_data_passthrough(event) or []


def _malformed(message: str) -> WireError:
    return WireError(f"a response that cannot be passed on: {message}", code="malformed_response")

"""The client's connection: requests in, responses out, framed by one h11 object.

Bytes are kept here until a head is whole and checked; h11 gets exactly the head, then the body, so
that nothing it forgives (see ``http_head``) can pass. Pipelined requests wait here, unread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import h11

from egressproxy.wire.http_fields import Fields, trailer_fields
from egressproxy.wire.http_head import ambiguous, check_begin, find_head, split_head
from egressproxy.wire.http_request import RequestHead, read_request_head

if TYPE_CHECKING:
    from egressproxy.wire.http_head import RawHead
    from egressproxy.wire.http_response import ResponseHead

_MAX_CHUNK_LINE_BYTES = 16384  # a chunk's size line with extensions, or a trailer section


class BodyPart(NamedTuple):
    """Body bytes that are here now; ``trailers`` is set, if only empty, with the last of them."""

    data: bytes
    trailers: Fields | None


class Downstream:
    """One client connection over all its requests.

    Args:
        port: see ``http_request.read_request_head``.
        max_head_bytes: of one request head.
    """

    __slots__ = (
        "_begun",
        "_connection",
        "_head",
        "_max_head_bytes",
        "_pending",
        "_port",
        "_searched",
        "_skipped",
        "_unfed",
        "_used_up",
    )

    def __init__(self, *, port: int | None, max_head_bytes: int) -> None:
        self._port = port
        self._max_head_bytes = max_head_bytes
        self._pending = bytearray()
        self._searched = 0
        self._begun = False
        self._skipped = False
        self._used_up = False
        self._unfed: int | None = None
        self._head: RequestHead | None = None
        self._connection = _new_connection()

    @property
    def buffered(self) -> int:
        """Bytes that wait to be read."""
        return len(self._pending)

    @property
    def can_go_on(self) -> bool:
        """Whether another request may follow on this connection."""
        return self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the client."""
        self._pending += data

    def take_rest(self) -> bytes:
        """Everything that was not read as HTTP, for a tunnel."""
        rest = self._connection.trailing_data[0] + bytes(self._pending)
        self._pending.clear()
        return rest

    def next_head(self) -> RequestHead | None:
        """The next request, once the one before is complete; ``None`` is need more.

        Raises:
            HttpError: never to be read; the connection is of no further use.
        """
        pending = self._pending
        if not self._searched and not self._skipped and pending[:1] == b"\r":
            if len(pending) > 1 and pending[1] == 10:
                del pending[:2]  # RFC 9112 section 2.2: one empty line is forgiven
                self._skipped = True
            elif len(pending) == 1:
                return None
        if not pending:
            return None
        if not self._begun:
            self._begun = check_begin(pending)
        size = find_head(pending, self._searched, self._max_head_bytes)
        if size is None:
            self._searched = len(pending)
            return None
        self._begun = True
        self._searched = 0
        self._skipped = False
        head = bytes(pending[:size])
        del pending[:size]
        raw = split_head(head)
        facts = read_request_head(raw, self._port)
        self._read_head(head, raw)
        self._unfed = facts.content_length or 0
        if facts.is_chunked:
            self._unfed = None
        self._head = facts
        return facts

    def read_body(self) -> BodyPart:
        """What of the current request's body is here.

        Raises:
            HttpError: broken framing; the connection is of no further use.
        """
        pending, connection = self._pending, self._connection
        if pending and self._unfed != 0:
            fed = bytes(pending) if self._unfed is None else bytes(pending[: self._unfed])
            if self._unfed is not None:
                self._unfed -= len(fed)
            del pending[: len(fed)]
            connection.receive_data(fed)
        pieces: list[bytes] = []
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as error:
                raise ambiguous("a request body with broken chunks or trailers") from error
            if type(event) is h11.Data:
                pieces.append(event.data)
            elif type(event) is h11.EndOfMessage:
                self._keep_rest()
                return BodyPart(b"".join(pieces), trailer_fields(event.headers.raw_items()))
            else:
                return BodyPart(b"".join(pieces), None)

    def send_head(self, head: ResponseHead, *, close: bool) -> list[bytes]:
        """A response head or an interim one, with the framing that this client understands.

        HTTP/1.0 clients get no interim responses (RFC 9110 section 15.2): nothing is returned.
        """
        if not head.is_interim:
            fields = [*head.fields, (b"Connection", b"close")] if close else head.fields
            return self._send(
                h11.Response(status_code=head.status, headers=fields, reason=head.reason)
            )
        if self._connection.their_http_version == b"1.0":
            return []
        fields = head.fields
        if head.is_switch:
            fields = [*fields, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        return self._send(
            h11.InformationalResponse(status_code=head.status, headers=fields, reason=head.reason)
        )

    def send_body(self, data: bytes) -> list[bytes]:
        """Body bytes of the response."""
        return self._send(h11.Data(data=data))

    def send_end(self, trailers: Fields) -> list[bytes]:
        """The end of the response; HTTP/1.0 clients get no trailers."""
        if self._connection.their_http_version == b"1.0":
            trailers = []
        return self._send(h11.EndOfMessage(headers=trailers))

    def next_cycle(self) -> None:
        """Make ready for the next request; only where ``can_go_on``."""
        if self._used_up:
            self._connection = _new_connection()
            self._used_up = False
        else:
            self._connection.start_next_cycle()

    def _read_head(self, head: bytes, raw: RawHead) -> None:
        """The checks in front are meant to be the stricter reader; h11 has the last word."""
        try:
            self._connection.receive_data(head)
            event = self._connection.next_event()
        except h11.RemoteProtocolError as error:
            raise ambiguous("a head that a second reader refuses") from error
        if (
            type(event) is not h11.Request
            or (event.method, event.target, event.http_version) != raw[:3]
        ):
            raise ambiguous("a head that a second reader reads differently")

    def _keep_rest(self) -> None:
        """Take back what h11 was given beyond a chunked body: it may be the next head."""
        rest = self._connection.trailing_data[0]
        if rest:
            self._pending[:0] = rest
            self._used_up = True

    def _send(self, event: h11.Event) -> list[bytes]:
        return self._connection.send_with_data_passthrough(event) or []


def _new_connection() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_CHUNK_LINE_BYTES)

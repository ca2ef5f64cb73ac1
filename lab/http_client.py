"""An HTTP/1.1 client on a given socket, one exchange after another on the same connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import h11

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

_READ_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@dataclass(slots=True)
class HttpClient:
    """Exchanges on one connection; ``get`` names any Host, whatever the connection is to."""

    connection: socket.socket
    _h11: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))

    def get(self, host: str, path: str = "/") -> Response:
        """Send a GET and read its answer."""
        self.send(host, path)
        return self.receive()

    def post(self, host: str, path: str, body: bytes, *, chunked: bool = False) -> Response:
        """Send a POST, with Content-Length or in one chunk, and read its answer."""
        framing = (
            ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body)))
        )
        self.send(host, path, "POST", (framing,), body)
        return self.receive()

    def send(
        self,
        host: str,
        path: str,
        method: str = "GET",
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> None:
        """Send a whole request; its answer is for ``receive``."""
        head = h11.Request(method=method, target=path, headers=[("Host", host), *headers])
        events = (
            (head, h11.Data(data=body), h11.EndOfMessage()) if body else (head, h11.EndOfMessage())
        )
        self.connection.sendall(b"".join(self._h11.send(event) or b"" for event in events))

    def receive(self) -> Response:
        """Read one whole answer, interim ones left out.

        Raises:
            ConnectionError: the other side closed before its end.
        """
        head: h11.Response | None = None
        body = bytearray()
        while True:
            match self._h11.next_event():
                case h11.Response() as head:
                    pass
                case h11.Data(data=data):
                    body += data
                case h11.EndOfMessage() if head is not None:
                    return self._finish(head, bytes(body))
                case h11.ConnectionClosed():
                    raise ConnectionAbortedError("closed without an answer")
                case h11.NEED_DATA:
                    self._h11.receive_data(self.connection.recv(_READ_BYTES))
                case _:
                    pass

    def _finish(self, head: h11.Response, body: bytes) -> Response:
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        headers = {name.decode(): value.decode() for name, value in head.headers}
        return Response(head.status_code, headers, body)

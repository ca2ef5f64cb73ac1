"""A TLS client whose every byte is known: what was sent, cut as the caller wants it.

Python's own TLS (OpenSSL) over memory buffers; the ClientHello can be spread over several sends
and over TLS records as small as one byte (RFC 8446 section 5.1), and its ALPN list made so long
that it needs several TCP segments, as post-quantum key shares do.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

_READ_BYTES: Final = 1 << 16
_RECORD_HEADER: Final = 5
ALERT_RECORD: Final = 21


@dataclass(frozen=True, slots=True)
class Offer:
    """What the client says in its hello."""

    name: str | None
    alpn: tuple[str, ...] = ()
    record_bytes: int = 0
    """Payload of each TLS record of the hello; 0 leaves it as OpenSSL made it."""
    client_certificate: Path | None = None


@dataclass(slots=True)
class TlsClient:
    """One connection; use as a context manager."""

    connection: socket.socket
    hello: bytes
    _channel: ssl.SSLObject
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    first_answer: bytes = field(default=b"")
    """The first bytes that came back: a server's flight, or a refusal."""

    def handshake(self) -> str | None:
        """Finish the handshake after the hello was sent; returns the ALPN chosen.

        Raises:
            ssl.SSLError: a fatal alert, or a certificate that is not to be trusted.
            ConnectionError: closed or reset before the end.
        """
        while True:
            try:
                self._channel.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
                continue
            self._flush()
            return self._channel.selected_alpn_protocol()

    def send(self, data: bytes) -> None:
        """Encrypt and send."""
        self._channel.write(data)
        self._flush()

    def read(self, limit: int = _READ_BYTES) -> bytes:
        """Some decrypted bytes; none at the end."""
        while True:
            try:
                return self._channel.read(limit)
            except ssl.SSLWantReadError:
                self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def read_line(self) -> bytes:
        """Decrypted bytes up to a line end, which is taken off."""
        line = bytearray()
        while (byte := self.read(1)) not in (b"\n", b""):
            line += byte
        return bytes(line)

    def __enter__(self) -> TlsClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.close()

    def _fill(self) -> None:
        data = self.connection.recv(_READ_BYTES)
        if not data:
            self._incoming.write_eof()
            raise ConnectionAbortedError("closed by the other side")
        if not self.first_answer:
            self.first_answer = data
        self._incoming.write(data)

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self.connection.sendall(data)


def client_hello(offer: Offer, ca_file: Path) -> TlsClient:
    """A client with its hello made and nothing sent; ``connection`` is not yet connected."""
    context = ssl.create_default_context(cafile=str(ca_file))
    if offer.alpn:
        context.set_alpn_protocols(list(offer.alpn))
    if offer.name is None:
        context.check_hostname = False
    if offer.client_certificate is not None:
        context.load_cert_chain(offer.client_certificate)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    channel = context.wrap_bio(incoming, outgoing, server_hostname=offer.name)
    with contextlib.suppress(ssl.SSLWantReadError):
        channel.do_handshake()
    hello = outgoing.read()
    if offer.record_bytes:
        hello = cut_records(hello, offer.record_bytes)
    return TlsClient(socket.socket(), hello, channel, incoming, outgoing)


def open_tls(
    connection: socket.socket, offer: Offer, ca_file: Path, *, pieces: Sequence[int] = ()
) -> TlsClient:
    """Send a ClientHello on a connected socket, in pieces of the given sizes, then the rest.

    The handshake is left to the caller, because it may be refused.
    """
    client = client_hello(offer, ca_file)
    client.connection.close()
    client.connection = connection
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    start = 0
    for size in pieces:
        connection.sendall(client.hello[start : start + size])
        start += size
    connection.sendall(client.hello[start:])
    return client


def cut_records(records: bytes, payload_bytes: int) -> bytes:
    """The same handshake bytes in records of ``payload_bytes`` each."""
    cut = bytearray()
    offset = 0
    while offset < len(records):
        kind_and_version = records[offset : offset + 3]
        length = int.from_bytes(records[offset + 3 : offset + _RECORD_HEADER], "big")
        offset += _RECORD_HEADER
        payload = records[offset : offset + length]
        offset += length
        for start in range(0, length, payload_bytes):
            piece = payload[start : start + payload_bytes]
            cut += kind_and_version + len(piece).to_bytes(2, "big") + piece
    return bytes(cut)


def alert_of(data: bytes) -> int | None:
    """The description number of a fatal TLS alert; ``None`` where the bytes are none."""
    if len(data) == 7 and data[0] == ALERT_RECORD and data[5] == 2:
        return data[6]
    return None

"""From bytes to a ``ClientHello``: TLS records, handshake header, extensions.

Sources: RFC 8446 sections 4.1.2, 4.2 and 5.1 (TLS 1.3), RFC 5246 section 7.4.1.2 (TLS 1.2),
RFC 6066 section 3 (server_name), RFC 7301 (ALPN), RFC 9849 (Encrypted ClientHello).

Three results only: ``None`` (more bytes are needed), a ``ClientHello``, or ``WireError`` whose code
is a ``Fault`` (these bytes never become a ClientHello). Any split over TCP segments and TLS records
gives the same result. What ends how:

- a first byte that is not 22, an SSLv2 hello among them: ``not_tls_or_http``
- a record or hello that ends beyond the limit: ``hello_too_large``
- no ``server_name`` extension, or no extensions at all: a ``ClientHello`` with fault ``no_sni``
- a name that is an IP address: a ``ClientHello`` with fault ``ip_literal``
- ``malformed_hello``: an empty name, several names, a name type other than host, a name that is no
  host name (spaces, NUL, not ASCII); two extensions of one type; a length that disagrees with what
  it measures; bytes after the hello in its last record; an empty record; a record of another type
  before the hello is whole
- bytes after the hello's last record (early data): not looked at

Where OpenSSL is laxer (it takes the first of several names, skips unknown extensions that come
twice, reads a second handshake message in the same record), we refuse: what two readers could read
differently is not judged.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple

from egressproxy.errors import InvalidNameError, WireError
from egressproxy.names import DnsName
from egressproxy.wire.fault import Fault

DEFAULT_LIMIT: Final = 65536
HANDSHAKE_RECORD: Final = 22
ONE_SEGMENT: Final = 1200
"""Octets that a TCP segment holds on any usual path: 1280 is the least MTU of IPv6 (RFC 8200)."""

_CLIENT_HELLO: Final = 1
_RECORD_HEADER: Final = 5
_HANDSHAKE_HEADER: Final = 4
_BODY: Final = _RECORD_HEADER + _HANDSHAKE_HEADER
_MAX_FRAGMENT: Final = 1 << 14  # RFC 8446 section 5.1

_SERVER_NAME: Final = 0
_ALPN: Final = 16
_SUPPORTED_VERSIONS: Final = 43
_ECH: Final = frozenset((0xFE0D, 0xFE0C, 0xFE0B, 0xFE0A, 0xFE09, 0xFE08, 0xFF02, 0xFFCE))
"""``encrypted_client_hello``, its drafts, and ESNI before them: all hide the name."""
_LEAST_ECH: Final = min(_ECH)
_LOW_KINDS: Final = 61  # their bits fit what the compiler takes for a small integer

_VERSIONS: Final = {0x0300: "ssl3", 0x0301: "1.0", 0x0302: "1.1", 0x0303: "1.2", 0x0304: "1.3"}
_U16: Final = struct.Struct(">H")
_HEADERS: Final = struct.Struct(">BBBHBBH")  # of a record and of the handshake message in it
_new: Final = tuple.__new__  # a third of what calling a named tuple's class costs
_MEMO_OCTETS: Final = 256  # longer values are parsed each time, so that memos stay small


class ClientHello(NamedTuple):
    """The facts of a ClientHello.

    ``name`` is the server name in normal form, ``None`` where ``fault`` says why there is none
    (``no_sni`` or ``ip_literal``). ``alpn`` and ``versions`` are in the client's order of
    preference; unknown versions and GREASE (RFC 8701) are left out. ``has_ech`` is true for a real
    Encrypted ClientHello and for GREASE alike: they are made to look the same, and under a real one
    ``name`` is only the public name. ``size`` counts the bytes of the hello's ``records``, headers
    included.
    """

    name: DnsName | None
    fault: Fault | None
    alpn: tuple[str, ...]
    versions: tuple[str, ...]
    has_ech: bool
    size: int
    records: int = 1

    @property
    def fits_one_segment(self) -> bool:
        """Whether one record of it fits one TCP segment on any path: in two it is by choice."""
        return self.size - _RECORD_HEADER * (self.records - 1) <= ONE_SEGMENT


def parse_client_hello(
    data: bytes | bytearray | memoryview, limit: int = DEFAULT_LIMIT
) -> ClientHello | None:
    """Read the ClientHello at the start of ``data``.

    For what has arrived at once; where this gives ``None``, go on with a ``HelloReader``.

    Args:
        data: all bytes of the connection so far.
        limit: octets the hello may take, record headers included.

    Returns:
        The facts, or ``None`` where more bytes are needed.

    Raises:
        WireError: never a ClientHello; ``code`` is a ``Fault``.
    """
    if len(data) >= _BODY:
        headers: tuple[int, int, int, int, int, int, int] = _HEADERS.unpack_from(data)
        record, major, _, fragment, message, high, low = headers
        end = _RECORD_HEADER + fragment
        if (
            record == HANDSHAKE_RECORD
            and major == 3
            and message == _CLIENT_HELLO
            and fragment == _HANDSHAKE_HEADER + (high << 16 | low)
            and fragment <= _MAX_FRAGMENT
            and end <= limit
        ):
            if len(data) < end:
                return None
            body = data[_BODY:end]
            return _parse_body(body if isinstance(body, bytes) else bytes(body), end)
    return HelloReader(limit).feed(data)


class HelloReader:
    """Collects a ClientHello over any split, looking at each byte once.

    ``raw`` holds every byte fed, for the exact replay to the server.
    """

    __slots__ = ("_body", "_fragment_end", "_length", "_limit", "_next", "_records", "raw")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.raw = bytearray()
        self._limit = limit
        self._body = bytearray()  # the handshake message, record headers taken out
        self._length = 0  # of the whole handshake message; 0 until its header is there
        self._next = 0  # in raw: the first byte not yet looked at
        self._fragment_end = 0  # in raw: where the current record ends
        self._records = 0

    def feed(self, data: bytes | bytearray | memoryview) -> ClientHello | None:
        """Take the next bytes; results and errors as ``parse_client_hello``."""
        self.raw += data
        while self._next < self._fragment_end or self._begin_record():
            self._take_fragment()
            if self._length and len(self._body) >= self._length:
                return self._finish()
            if self._next < self._fragment_end:
                break
        return None

    def _begin_record(self) -> bool:
        raw, at = self.raw, self._next
        header = raw[at : at + _RECORD_HEADER]
        if header and header[0] != HANDSHAKE_RECORD:
            if at == 0:
                raise WireError("not a TLS handshake record", code=Fault.NOT_TLS_OR_HTTP)
            raise _malformed(f"a record of type {header[0]} inside the hello")
        if len(header) > 1 and header[1] != 3:
            raise _malformed(f"record version {header[1]}.x")
        if len(header) < _RECORD_HEADER:
            return False
        fragment = header[3] << 8 | header[4]
        if not 0 < fragment <= _MAX_FRAGMENT:
            raise _malformed(f"a record of {fragment} octets")
        self._next = at + _RECORD_HEADER
        self._fragment_end = self._next + fragment
        self._records += 1
        if self._fragment_end > self._limit:
            raise _too_large(self._limit)
        return True

    def _take_fragment(self) -> None:
        end = min(len(self.raw), self._fragment_end)
        self._body += self.raw[self._next : end]
        self._next = end
        if self._length or not self._body:
            return
        body = self._body
        if body[0] != _CLIENT_HELLO:
            raise _malformed(f"handshake message {body[0]} instead of a ClientHello")
        if len(body) >= _HANDSHAKE_HEADER:
            self._length = _HANDSHAKE_HEADER + (body[1] << 16 | body[2] << 8 | body[3])
            if self._length + _RECORD_HEADER > self._limit:
                raise _too_large(self._limit)

    def _finish(self) -> ClientHello:
        if len(self._body) > self._length or self._next < self._fragment_end:
            raise _malformed("bytes after the hello in its record")
        body = bytes(self._body[_HANDSHAKE_HEADER:])
        return _parse_body(body, self._fragment_end)._replace(records=self._records)


def _parse_body(body: bytes, size: int) -> ClientHello:
    # body ends where the hello ends, so that a length that runs past it is an exception.
    try:
        name_at, alpn_at, versions_at, has_ech = _extensions(body)
        server_name = _extension(body, name_at)
        alpn = _extension(body, alpn_at)
        versions = _extension(body, versions_at)
        if versions is None:
            versions = b"\x02" + body[:2]
        octets = len(server_name or b"") + len(alpn or b"") + len(versions)
        read = _remembered if octets <= _MEMO_OCTETS else _read
        name, fault, protocols, offered = read(server_name, alpn, versions)
    except (IndexError, struct.error) as error:
        raise _malformed("a length runs past the end of the hello") from error
    return _new(ClientHello, (name, fault, protocols, offered, has_ech, size, 1))


def _extensions(body: bytes) -> tuple[int, int, int, bool]:
    """Where server_name, ALPN and supported_versions begin (0: not there), and whether ECH does."""
    end = len(body)
    at = _first_extension(body)
    name = alpn = versions = count = 0
    has_ech = False
    low = 0  # a bit a kind: all but a few are low
    high: set[int] = set()
    while at < end:
        kind = body[at] << 8 | body[at + 1]
        if kind == _SERVER_NAME:
            name = at
        elif kind == _ALPN:
            alpn = at
        elif kind == _SUPPORTED_VERSIONS:
            versions = at
        elif kind >= _LEAST_ECH and kind in _ECH:
            has_ech = True
        if kind < _LOW_KINDS:
            low |= 1 << kind
        else:
            high.add(kind)
        count += 1
        at += 4 + (body[at + 2] << 8 | body[at + 3])
    if at != end:
        raise _malformed("an extension runs past the end of the hello")
    if low.bit_count() + len(high) != count:
        raise _malformed("two extensions of one type")
    return name, alpn, versions, has_ech


def _first_extension(body: bytes) -> int:
    """Where the extensions begin; where the hello ends if there are none."""
    if body[0] != 3:
        raise _malformed(f"client version {body[0]}.{body[1]}")
    at = 34  # legacy_version and random
    session = body[at]
    at += 1 + session
    suites = body[at] << 8 | body[at + 1]
    at += 2 + suites
    compressions = body[at]
    at += 1 + compressions
    if session > 32 or suites % 2 or not suites or not compressions:
        raise _malformed("session id, cipher suites or compression methods of a wrong size")
    end = len(body)
    if at == end:
        return end
    at += 2
    if at + (body[at - 2] << 8 | body[at - 1]) != end:
        raise _malformed("the extensions do not end with the hello")
    return at


def _extension(body: bytes, start: int) -> bytes | None:
    if not start:
        return None
    return body[start + 4 : start + 4 + (body[start + 2] << 8 | body[start + 3])]


def _read(
    server_name: bytes | None, alpn: bytes | None, versions: bytes
) -> tuple[DnsName | None, Fault | None, tuple[str, ...], tuple[str, ...]]:
    """The extensions that matter, of which one client sends the same again and again."""
    name, fault = _server_name(server_name)
    return name, fault, () if alpn is None else _protocols(alpn), _offered_versions(versions)


_remembered = lru_cache(maxsize=4096)(_read)


def _server_name(data: bytes | None) -> tuple[DnsName | None, Fault | None]:
    if data is None:
        return None, Fault.NO_SNI
    if len(data) < 6 or data[2] or _U16.unpack_from(data)[0] != len(data) - 2:
        raise _malformed("a server_name list that is empty, not of host names, or of a wrong size")
    if _U16.unpack_from(data, 3)[0] != len(data) - 5:
        raise _malformed("not exactly one server name")
    try:
        return DnsName(data[5:]), None
    except InvalidNameError as error:
        if error.code == Fault.IP_LITERAL:
            return None, Fault.IP_LITERAL
        raise _malformed(f"server name: {error.message}") from error


def _protocols(data: bytes) -> tuple[str, ...]:
    if len(data) < 4 or _U16.unpack_from(data)[0] != len(data) - 2:
        raise _malformed("an ALPN list that is empty or of a wrong size")
    protocols = []
    at = 2
    while at < len(data):
        length = data[at]
        protocol = data[at + 1 : at + 1 + length]
        if not length or len(protocol) < length:
            raise _malformed("an ALPN protocol that is empty or runs past its list")
        protocols.append(protocol.decode("ascii", "backslashreplace"))
        at += 1 + length
    return tuple(protocols)


def _offered_versions(data: bytes) -> tuple[str, ...]:
    if data[0] != len(data) - 1 or data[0] % 2 or not data[0]:
        raise _malformed("a supported_versions list that is empty or of a wrong size")
    offered = (_U16.unpack_from(data, at)[0] for at in range(1, len(data), 2))
    return tuple(_VERSIONS[version] for version in offered if version in _VERSIONS)


def _malformed(what: str) -> WireError:
    return WireError(what, code=Fault.MALFORMED_HELLO)


def _too_large(limit: int) -> WireError:
    return WireError(
        f"a ClientHello above {limit} octets", hint="max_hello_bytes", code=Fault.HELLO_TOO_LARGE
    )

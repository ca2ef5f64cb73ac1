"""A request head as bytes: where it ends, and whether every reader splits it into the same lines.

h11 forgives bare LF, obs-fold and repeated Content-Length; what is forgiven here is read otherwise
elsewhere, so the bytes are checked before h11 sees them (RFC 9112 sections 2.2, 5.1, 5.2 and 11.2).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from egressproxy.errors import HttpError
from egressproxy.wire.fault import Fault

MAX_FIELDS: Final = 100  # Apache's LimitRequestFields; http.client and others read no more either
MAX_METHOD_BYTES: Final = 32

_TEXT: Final = b"\t\r\n" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_END: Final = b"\r\n\r\n"


class RawHead(NamedTuple):
    """The lines of a head, proven unambiguous.

    ``fields`` are (name as written, value) in order, ``values`` the same by lower-case name.
    """

    method: bytes
    target: bytes
    version: bytes
    fields: list[tuple[bytes, bytes]]
    values: dict[bytes, list[bytes]]


def ambiguous(message: str, hint: str = "", *, status: int = 400) -> HttpError:
    """The refusal of a head that two readers could read differently."""
    return HttpError(message, hint=hint, code=Fault.AMBIGUOUS_REQUEST, status=status)


def find_head(buffer: bytearray, searched: int, max_bytes: int) -> int | None:
    """Length of the head that ``buffer`` begins with, or ``None`` for need more.

    Args:
        buffer: from the first byte of the request line on.
        searched: bytes of it that were searched before; what is new alone is scanned.
        max_bytes: of a head.

    Raises:
        HttpError: ``head_too_large`` (431), or a line end that is not CRLF.
    """
    begin = max(0, searched - 3)
    end = buffer.find(_END, begin)
    size = end + 4 if end >= 0 else len(buffer)
    if size > max_bytes:
        raise HttpError(
            f"a request head above {max_bytes} bytes",
            hint="smaller cookies, or raise max_request_head_bytes",
            code=Fault.HEAD_TOO_LARGE,
            status=431,
        )
    if end < 0:
        # A head with bare LF would never end here, and its sender would wait for the timeout.
        # A pair that begins at searched - 1 has its LF among the new bytes.
        pairs = buffer.count(b"\r\n", max(0, searched - 1))
        if buffer.count(b"\n", searched) != pairs:
            raise ambiguous("a line that ends in LF without CR")
        return None
    return size


def check_begin(buffer: bytearray) -> bool:
    """Hold the first bytes of a connection to what can begin a request; ``False`` is need more.

    Raises:
        HttpError: ``not_tls_or_http``.
    """
    line, ended, _ = bytes(buffer[:4096]).partition(b"\n")
    method = line.partition(b" ")[0].rstrip(b"\r")
    if (
        len(method) > MAX_METHOD_BYTES
        or method.translate(None, TOKEN)
        or (ended and b" HTTP/" not in line)
    ):
        raise HttpError(
            "bytes that begin no HTTP/1 request", code=Fault.NOT_TLS_OR_HTTP, status=400
        )
    return bool(ended)


def split_head(head: bytes) -> RawHead:
    """Split a whole head, the empty line included.

    Raises:
        HttpError: 400; or 505 for a version that is neither 1.0 nor 1.1.
    """
    if head.translate(None, _TEXT):
        raise ambiguous("a control character in the head")
    lines = head[:-4].split(b"\r\n")
    if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1:
        raise ambiguous("a line that does not end in CR LF")
    if len(lines) - 1 > MAX_FIELDS:
        raise HttpError(
            f"{len(lines) - 1} header fields, {MAX_FIELDS} are allowed",
            code=Fault.HEAD_TOO_LARGE,
            status=431,
        )
    method, target, version = _request_line(lines[0])
    fields = [_field(line) for line in lines[1:]]
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        values.setdefault(name.lower(), []).append(value)
    return RawHead(method, target, version, fields, values)


def _request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    parts = line.split(b" ")
    if line == b"PRI * HTTP/2.0":
        raise HttpError(
            "HTTP/2 with prior knowledge",
            hint="HTTP/2 in clear text hides whom each request is for: use HTTP/1.1 or TLS",
            code=Fault.H2C_REFUSED,
            status=505,
        )
    if len(parts) != 3 or not all(parts) or b"\t" in line:
        raise ambiguous("a request line that is not: method, target, version, one space between")
    method, target, version = parts
    if len(method) > MAX_METHOD_BYTES or method.translate(None, TOKEN):
        raise ambiguous("a method that is no token of at most 32 characters")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        named = version[:5] == b"HTTP/" and len(version) == 8
        raise ambiguous("neither HTTP/1.1 nor HTTP/1.0", status=505 if named else 400)
    return method, target, version[5:]


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not name or name.translate(None, TOKEN):
        if line[:1] in (b" ", b"\t"):
            raise ambiguous("a folded header line (obs-fold)", "RFC 9112 section 5.2")
        raise ambiguous(
            "a header line that is not: name, colon, value", "no space before the colon"
        )
    return name, value.strip(b" \t")

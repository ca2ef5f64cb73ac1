"""The client's side of an HTTP/1 connection: strict request heads and framing on top of h11.

A head is delimited and checked as bytes (``http_head``), read by h11, and its facts are taken from
both, which must agree. ``RequestHead`` holds what is judged and what is forwarded: there is no way
to forward the bytes that came. Sources: RFC 9112 sections 3 (targets, Host), 6 (framing), 9
(persistence); RFC 9110 sections 7.6, 7.8 (hop-by-hop, Upgrade), 10.1.1 (Expect).

What is not forwarded although some servers would take it: several Content-Length fields (even
equal), Transfer-Encoding other than exactly ``chunked``, TE with Content-Length, chunked in
HTTP/1.0, a request without Host whatever its version, an origin-form request in the explicit plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.errors import HttpError
from egressproxy.wire.fault import Fault
from egressproxy.wire.http_authority import Authority, parse_authority
from egressproxy.wire.http_fields import NEVER_NOMINATED, Fields, request_fields, tokens
from egressproxy.wire.http_head import ambiguous, check_begin, find_head, split_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.wire.http_head import RawHead

_HTTP_PORT: Final = 80
_MAX_LENGTH_DIGITS: Final = 18  # below 2**63, the smallest bound among servers
_CONNECT: Final = b"CONNECT "


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The facts of one request.

    Attributes:
        authority: whom it is for; ``port`` is the one to judge and dial.
        host: the Host field to send, with a port only where the client wrote one.
        target: origin-form, or ``*``.
        fields: end-to-end fields in order, without Host and framing.
        content_length: ``None`` where the client gave none.
        is_chunked: the body is delimited by chunks.
        is_last: the client wants no further request on this connection (or speaks HTTP/1.0).
        is_websocket: it asks for ``Upgrade: websocket``, as RFC 6455 section 4.1 has it.
        accept: the Accept field, for a refusal.
    """

    method: bytes
    authority: Authority
    host: bytes
    target: bytes
    fields: Fields
    content_length: int | None
    is_chunked: bool
    is_last: bool
    is_websocket: bool
    accept: bytes

    @property
    def has_body(self) -> bool:
        """Whether body bytes follow the head."""
        return self.is_chunked or bool(self.content_length)


@dataclass(frozen=True, slots=True)
class ConnectHead:
    """A CONNECT head; ``size`` is its length in bytes, what follows belongs to the tunnel.

    ``accept`` is the Accept field, for ``http_refusal``.
    """

    authority: Authority
    accept: bytes
    size: int


def is_connect(data: bytes | bytearray | memoryview) -> bool | None:
    """Whether a connection's first bytes begin a CONNECT; ``None`` while too few to tell."""
    begin = bytes(data[: len(_CONNECT)])
    if len(begin) < len(_CONNECT) and _CONNECT.startswith(begin):
        return None
    return begin == _CONNECT


def parse_connect(
    data: bytes | bytearray | memoryview, max_bytes: int, searched: int = 0
) -> ConnectHead | None:
    """Read a CONNECT head from the first bytes of a connection; ``None`` is need more.

    Args:
        data: everything since the connection began.
        max_bytes: of the head.
        searched: how much of ``data`` an earlier call has seen, so that nothing is scanned twice.

    Raises:
        HttpError: with the status to answer; ``ip_literal`` is no error but an ``authority``
            without a name.
    """
    buffer = bytearray(data)
    check_begin(buffer)
    size = find_head(buffer, searched, max_bytes)
    if size is None:
        return None
    raw = split_head(bytes(buffer[:size]))
    if raw.method != b"CONNECT":
        raise ambiguous("a request that is not CONNECT")
    authority, _ = parse_authority(raw.target, None)
    host = _single(raw, b"host")
    if raw.version == b"1.1" and host is None:
        raise ambiguous("no Host field", "RFC 9112 section 3.2")
    if host is not None:
        _check_same(authority, parse_authority(host, authority.port)[0])
    content_length, is_chunked = _framing(raw)
    if content_length or is_chunked:
        raise ambiguous("a CONNECT with a body")
    return ConnectHead(authority, b", ".join(raw.values.get(b"accept", ())), size)


def read_request_head(raw: RawHead, port: int | None) -> RequestHead:
    """Take the facts of a head.

    Args:
        raw: as ``http_head.split_head`` gives it.
        port: transparent plane: the original destination's port. ``None``: explicit plane, where
            the absolute-form target names the port.

    Raises:
        HttpError: with the status to answer.
    """
    connection = tokens(raw.values.get(b"connection", ()))
    if not NEVER_NOMINATED.isdisjoint(connection):
        raise ambiguous("a Connection field that names Host or a framing field")
    if raw.method == b"CONNECT":
        raise _connect_here(raw, port)
    authority, host, target = _target(raw, port)
    content_length, is_chunked = _framing(raw)
    upgrade = _upgrade(raw, authority)
    http_1_1 = raw.version == b"1.1"
    return RequestHead(
        method=raw.method,
        authority=authority,
        host=host,
        target=target,
        fields=request_fields(raw.fields, connection if http_1_1 else (*connection, b"expect")),
        content_length=content_length,
        is_chunked=is_chunked,
        is_last=not http_1_1 or b"close" in connection,
        is_websocket=b"websocket" in upgrade
        and b"upgrade" in connection
        and http_1_1
        and raw.method == b"GET"
        and not content_length
        and not is_chunked,
        accept=b", ".join(raw.values.get(b"accept", ())),
    )


def _single(raw: RawHead, name: bytes) -> bytes | None:
    values = raw.values.get(name)
    if values is None:
        return None
    if len(values) > 1:
        raise ambiguous(f"more than one {name.decode()} field")
    return values[0]


def _target(raw: RawHead, port: int | None) -> tuple[Authority, bytes, bytes]:
    """Authority, Host to send, origin-form (RFC 9112 sections 3.2 and 3.3)."""
    host = _single(raw, b"host")
    if host is None:
        raise ambiguous("no Host field", "without one there is no name to judge")
    if b"#" in raw.target or not raw.target.isascii():
        raise ambiguous("a fragment or bytes outside ASCII in the target")
    default = _HTTP_PORT if port is None else port
    named, has_port = parse_authority(host, default)
    target = raw.target
    if target[:1] != b"/" and target != b"*":
        target, absolute, has_port = _absolute(raw, default)
        _check_same(absolute, named)
        named = absolute
    elif port is None:
        raise ambiguous(
            "a request for this proxy itself", "a proxy is asked in absolute-form: GET http://host/"
        )
    elif target == b"*" and raw.method != b"OPTIONS":
        raise ambiguous("the target * with a method other than OPTIONS")
    field = (str(named) if has_port else named.host).encode("ascii")
    return (named if port is None else named._replace(port=port)), field, target


def _absolute(raw: RawHead, default: int) -> tuple[bytes, Authority, bool]:
    scheme, separator, rest = raw.target.partition(b"://")
    if not separator or scheme.lower() != b"http":
        raise ambiguous(
            "a target that is neither a path nor an http:// URL",
            "https goes through CONNECT; other schemes are not proxied",
        )
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    authority, has_port = parse_authority(rest[:cut], default)
    path = rest[cut:]
    if not path and raw.method == b"OPTIONS":
        return b"*", authority, has_port  # RFC 9112 section 3.2.4
    return (path if path[:1] == b"/" else b"/" + path), authority, has_port


def _check_same(target: Authority, host: Authority) -> None:
    """The names must agree; a port in Host yields to the target's (RFC 9112 section 3.2.2)."""
    if (target.name, target.address) != (host.name, host.address):
        raise HttpError(
            "the target names one host and the Host field another",
            hint="send the same name in both",
            code=Fault.HOST_MISMATCH,
            status=400,
            host=str(target),
        )


def _framing(raw: RawHead) -> tuple[int | None, bool]:
    length, coding = _single(raw, b"content-length"), _single(raw, b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise ambiguous("Content-Length beside Transfer-Encoding", "RFC 9112 section 6.1")
        if raw.version != b"1.1":
            raise ambiguous("Transfer-Encoding in HTTP/1.0", "RFC 9112 section 6.1")
        if coding.lower() != b"chunked":
            raise ambiguous("a Transfer-Encoding that is not chunked alone", status=501)
        return None, True
    if length is None:
        return None, False
    if not length.isdigit() or len(length) > _MAX_LENGTH_DIGITS:
        raise ambiguous("a Content-Length that is not one plain number")
    return int(length), False


def _upgrade(raw: RawHead, authority: Authority) -> Sequence[bytes]:
    offered = tokens(raw.values.get(b"upgrade", ()))
    if b"http2-settings" in raw.values or b"h2c" in offered or b"h2" in offered:
        raise HttpError(
            "an upgrade to HTTP/2 in clear text",
            hint="it would hide whom each request is for: use HTTP/1.1 (curl --http1.1) or TLS",
            code=Fault.H2C_REFUSED,
            status=403,
            host=str(authority),
        )
    return offered


def _connect_here(raw: RawHead, port: int | None) -> HttpError:
    if port is None:
        return ambiguous("CONNECT on a connection that carried requests", "open a new connection")
    return HttpError(
        "CONNECT on a connection that was not made to a proxy",
        hint="this gateway is transparent here: connect to the host itself",
        code=Fault.H2C_REFUSED,
        status=403,
        host=str(parse_authority(raw.target, None)[0]),
    )

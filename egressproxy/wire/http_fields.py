"""Which header fields go on to the other side (RFC 9110 section 7.6.1), and which never do.

Framing fields (Content-Length, Transfer-Encoding) and Host are written anew from the facts by
whoever sends. We add no Via and no X-Forwarded-For, in either plane: transparent means that the
server sees what the client sent, and nginx and others stop compressing at the sight of Via
(``gzip_proxied off``). RFC 9110 section 7.6.3 asks a proxy for Via; that is a deviation on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Fields: TypeAlias = list[tuple[bytes, bytes]]
"""(name as it was written, value), in order."""

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
_REWRITTEN: Final = frozenset({b"content-length", b"host"})
_NO_REQUEST: Final = _HOP_BY_HOP | _REWRITTEN
_NO_TRAILER: Final = _NO_REQUEST | {
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"max-forwards",
    b"range",
    b"set-cookie",
    b"te",
    b"trailer",
}
"""RFC 9110 section 6.5.1: framing, routing, request modifiers, authentication, content format."""

NEVER_NOMINATED: Final = frozenset({b"host", b"content-length", b"transfer-encoding"})
"""Fields that Connection must not name: stripping them would change whose message it is."""


def tokens(values: Iterable[bytes]) -> list[bytes]:
    """The lower-case elements of comma-separated fields, in order, empty ones dropped."""
    return [
        token for value in values for part in value.split(b",") if (token := part.strip().lower())
    ]


def request_fields(fields: Iterable[tuple[bytes, bytes]], nominated: Iterable[bytes]) -> Fields:
    """What of a request goes on, less what its Connection field nominated."""
    dropped = _NO_REQUEST.union(nominated)
    return [(name, value) for name, value in fields if name.lower() not in dropped]


def response_fields(fields: Iterable[tuple[bytes, bytes]], nominated: Iterable[bytes]) -> Fields:
    """What of a response goes on; Content-Length stays, it may describe a body that is not sent."""
    dropped = _HOP_BY_HOP.union(nominated) - {b"content-length"}
    return [(name, value) for name, value in fields if name.lower() not in dropped]


def trailer_fields(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """What of a trailer section goes on."""
    return [(name, value) for name, value in fields if name.lower() not in _NO_TRAILER]

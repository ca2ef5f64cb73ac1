"""Whom a request is for: ``host[:port]`` of Host, absolute-form and CONNECT (RFC 9110 section 7.2).

One reading only: ``host`` is a DNS name or a canonical IP literal. Lists, userinfo,
percent-encoding, zone identifiers, IPvFuture, an empty port and every other text that two readers
could take differently raise.
"""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

from egressproxy.errors import HttpError, InvalidNameError
from egressproxy.names import DnsName
from egressproxy.wire.fault import Fault

MAX_AUTHORITY_BYTES: Final = 300  # 253 octets of name, brackets, colon, port: and some slack


class Authority(NamedTuple):
    """A judged destination: exactly one of ``name`` and ``address`` is set.

    ``address`` is canonical text (``inet_ntop`` form, IPv4-mapped unwrapped). ``port`` is what is
    judged and dialled, 1 to 65535.
    """

    name: DnsName | None
    address: str | None
    port: int

    @property
    def host(self) -> str:
        """The name, or the address in brackets where it is IPv6: the host part of a Host field."""
        if self.name is not None:
            return self.name
        address = self.address or ""
        return f"[{address}]" if ":" in address else address

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_authority(text: bytes, default_port: int | None) -> tuple[Authority, bool]:
    """Read ``host[:port]``; the flag says whether a port was written.

    Args:
        text: the field value or target part, without surrounding whitespace.
        default_port: taken where none is written; ``None`` makes the port mandatory.

    Raises:
        HttpError: ``ambiguous_request`` (400), or ``ip_literal`` (403) for a text that some readers
            take for an address and no standard calls one (``127.1``, ``0x7f.1``).
    """
    if not text:
        raise _ambiguous("an empty host", "name the host")
    if len(text) > MAX_AUTHORITY_BYTES:
        raise _ambiguous(f"a host of {len(text)} bytes", f"{MAX_AUTHORITY_BYTES} are allowed")
    host, has_port, digits = _split_port(text)
    if not has_port and default_port is None:
        raise _ambiguous("a CONNECT target without a port", "CONNECT host:port")
    port = _port(digits) if has_port else default_port or 0
    if host[:1] == b"[":
        return Authority(None, _ipv6(host), port), has_port
    try:
        return Authority(DnsName(host), None, port), has_port
    except InvalidNameError as error:
        if error.code != "ip_literal":
            raise _ambiguous(f"the host is no name: {error.message}", error.hint) from error
    return Authority(None, _ipv4(host), port), has_port


def _split_port(text: bytes) -> tuple[bytes, bool, bytes]:
    if text[:1] == b"[":
        literal, bracket, rest = text.partition(b"]")
        if not bracket or (rest and rest[:1] != b":"):
            raise _ambiguous("a bracketed host that does not end", "write [2001:db8::1]:80")
        return literal + b"]", bool(rest), rest[1:]
    host, colon, digits = text.partition(b":")
    return host, bool(colon), digits


def _port(digits: bytes) -> int:
    if len(digits) <= 5 and digits.isdigit():
        port = int(digits)
        if 1 <= port <= 65535:
            return port
    raise _ambiguous("a port that is no number from 1 to 65535", "write host or host:port")


def _ipv6(literal: bytes) -> str:
    try:
        address = ipaddress.IPv6Address(literal[1:-1].decode("ascii"))
    except ValueError as error:
        raise _ambiguous("brackets around what is no IPv6 address", "") from error
    if address.scope_id is not None:
        raise _ambiguous("a zone identifier in a host", "zones have no meaning beyond one link")
    return str(address.ipv4_mapped or address)


def _ipv4(host: bytes) -> str:
    try:
        return str(ipaddress.IPv4Address(host.decode("ascii")))
    except ValueError as error:
        raise HttpError(
            "the host ends in a number and is no IPv4 address, but some readers take it for one",
            hint="name the host",
            code=Fault.IP_LITERAL,
            status=403,
        ) from error


def _ambiguous(message: str, hint: str) -> HttpError:
    return HttpError(message, hint=hint, code=Fault.AMBIGUOUS_REQUEST, status=400)

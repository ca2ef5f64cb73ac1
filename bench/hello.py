"""ClientHellos for any name: OpenSSL's of 517 octets, and the same with post-quantum keys."""

from __future__ import annotations

import random
import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEY_SHARE: Final = 51
_SUPPORTED_GROUPS: Final = 10
_PADDING: Final = 21
_X25519MLKEM768: Final = 0x11EC
_PRIME: Final = 3329
_RECORD_HEAD: Final = 5
_HANDSHAKE_HEAD: Final = 4
_BEFORE_SESSION: Final = _RECORD_HEAD + _HANDSHAKE_HEAD + 34


def client_hello(name: str) -> bytes:
    """The first flight of a real client that offers ``h2`` and ``http/1.1``."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError(name)


def post_quantum_hello(name: str) -> bytes:
    """What OpenSSL 3.5 and later say: X25519MLKEM768 first, beside X25519.

    Made of this machine's hello, whose OpenSSL may be older: the group and its key share of 1216
    octets (draft-ietf-tls-ecdhe-mlkem) are put in front, the padding is left out. Longer than one
    TCP segment on a link of 1500 octets.
    """
    hello = client_hello(name)
    start = _start_of_extensions(hello)
    rest = b"".join(
        _vector(_changed(kind, data), kind.to_bytes(2))
        for kind, data in _extensions(hello[start + 2 :])
        if kind != _PADDING
    )
    body = hello[_RECORD_HEAD + _HANDSHAKE_HEAD : start] + _vector(rest)
    message = hello[_RECORD_HEAD : _RECORD_HEAD + 1] + len(body).to_bytes(3) + body
    return _vector(message, hello[: _RECORD_HEAD - 2])


def _changed(kind: int, data: bytes) -> bytes:
    group = _X25519MLKEM768.to_bytes(2)
    if kind == _SUPPORTED_GROUPS:
        return _vector(group + data[2:])
    if kind == _KEY_SHARE:
        return _vector(_vector(_key(), group) + data[2:])
    return data


def _key() -> bytes:
    """An ML-KEM-768 encapsulation key (FIPS 203: 768 numbers of 12 bits, 32 octets), then X25519's.

    The numbers are below the prime, as a server checks; always the same ones, as runs are compared.
    """
    chance = random.Random(_X25519MLKEM768)
    bits = sum(chance.randrange(_PRIME) << 12 * n for n in range(768))
    return bits.to_bytes(768 * 12 // 8, "little") + chance.randbytes(32 + 32)


def _start_of_extensions(hello: bytes) -> int:
    """Where the length of the extensions stands: behind session id, cipher suites, compression."""
    at = _BEFORE_SESSION
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2])
    return at + 1 + hello[at]


def _extensions(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        kind, size = (int.from_bytes(data[n : n + 2]) for n in (at, at + 2))
        yield kind, data[at + 4 : at + 4 + size]
        at += 4 + size


def _vector(data: bytes, before: bytes = b"") -> bytes:
    """``data`` with its length in two octets in front, and ``before`` in front of that."""
    return before + len(data).to_bytes(2) + data

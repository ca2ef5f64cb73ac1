"""A ClientHello of OpenSSL's, 517 octets, for any name."""

from __future__ import annotations

import ssl


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

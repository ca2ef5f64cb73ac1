"""The alert that refuses a ClientHello is one that a TLS client understands."""

from __future__ import annotations

import ssl

import pytest

from egressproxy.wire.alert import ACCESS_DENIED


def test_openssl_reads_access_denied() -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    incoming.write(ACCESS_DENIED)
    with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"):
        client.do_handshake()

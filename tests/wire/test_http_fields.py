"""Hop-by-hop fields end here; everything else goes on in order and as it was written."""

from __future__ import annotations

import pytest

from egressproxy.wire.http_fields import request_fields, response_fields, tokens, trailer_fields


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([b"close"], [b"close"]),
        ([b"Keep-Alive, TE", b" close ,, "], [b"keep-alive", b"te", b"close"]),
    ],
)
def test_tokens(values: list[bytes], expected: list[bytes]) -> None:
    assert tokens(values) == expected


@pytest.mark.parametrize(
    "name",
    [
        b"Connection", b"Content-Length", b"HTTP2-Settings", b"Host", b"Keep-Alive",
        b"Proxy-Authorization", b"Proxy-Connection", b"TE", b"Transfer-Encoding", b"Upgrade",
        b"X-Nominated",
    ],
)  # fmt: skip
def test_request_fields_that_end_here(name: bytes) -> None:
    kept = [(b"User-Agent", b"x"), (b"user-agent", b"y")]
    assert request_fields([kept[0], (name, b"v"), kept[1]], [b"x-nominated"]) == kept


def test_a_response_keeps_its_length_whatever_connection_says() -> None:
    fields = [(b"Content-Length", b"5"), (b"X-A", b"b"), (b"Keep-Alive", b"timeout=5")]
    assert response_fields(fields, [b"content-length", b"x-a"]) == [(b"Content-Length", b"5")]


@pytest.mark.parametrize(
    "name", [b"Host", b"Content-Length", b"Transfer-Encoding", b"Authorization", b"Set-Cookie"]
)
def test_trailers_that_would_change_the_message_are_dropped(name: bytes) -> None:
    assert trailer_fields([(name, b"v"), (b"Checksum", b"v")]) == [(b"Checksum", b"v")]

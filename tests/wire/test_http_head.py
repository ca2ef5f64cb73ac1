"""Where a head ends and what is never a head."""

from __future__ import annotations

import pytest

from egressproxy.errors import HttpError
from egressproxy.wire.fault import Fault
from egressproxy.wire.http_head import MAX_FIELDS, check_begin, find_head, split_head


def test_find_head_gives_the_length_with_the_empty_line() -> None:
    assert find_head(bytearray(b"GET / HTTP/1.1\r\n\r\nrest"), 0, 100) == 18


@pytest.mark.parametrize("searched", [0, 5, 15, 16, 17])
def test_find_head_resumes_anywhere(searched: int) -> None:
    assert find_head(bytearray(b"GET / HTTP/1.1\r\n\r\nrest"), searched, 100) == 18


@pytest.mark.parametrize("searched", range(len(b"GET / HTTP/1.1\r\nA: b\r\n")))
def test_find_head_needs_more(searched: int) -> None:
    assert find_head(bytearray(b"GET / HTTP/1.1\r\nA: b\r\n"), searched, 100) is None


@pytest.mark.parametrize(
    "data", [b"x" * 101, b"x" * 98 + b"\r\n\r\n"], ids=["no-end-yet", "ends-beyond"]
)
def test_a_head_above_its_limit(data: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        find_head(bytearray(data), 0, 100)
    assert (caught.value.code, caught.value.status) == (Fault.HEAD_TOO_LARGE, 431)


def test_a_head_of_exactly_its_limit() -> None:
    assert find_head(bytearray(b"x" * 96 + b"\r\n\r\n"), 0, 100) == 100


@pytest.mark.parametrize("data", [b"a\nb", b"\nb", b"a\r\nb\n", b"a\n\n"])
def test_bare_lf_is_seen_before_the_end_of_the_head(data: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        find_head(bytearray(data), 0, 100)
    assert caught.value.code == Fault.AMBIGUOUS_REQUEST
    with pytest.raises(HttpError):
        byte_by_byte(data)


def byte_by_byte(data: bytes) -> None:
    buffer = bytearray()
    for at, byte in enumerate(data):
        buffer.append(byte)
        assert find_head(buffer, at, 100) is None


@pytest.mark.parametrize(
    ("data", "is_whole"),
    [
        (b"", False),
        (b"G", False),
        (b"GET /", False),
        (b"GET / HTTP/1.1\r", False),
        (b"GET / HTTP/1.1\r\n", True),
        (b"GET  / HTTP/1.1\n", True),
        (b"M" * 32, False),
    ],
)
def test_what_can_begin_a_request(data: bytes, is_whole: bool) -> None:
    assert check_begin(bytearray(data)) is is_whole


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x16\x03\x01", id="tls"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", id="ssh"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="ssh-one-word"),
        pytest.param(b"EHLO mail.example\r\n", id="smtp"),
        pytest.param(b"\x00\x00\x00\x00", id="zeroes"),
        pytest.param(b"GET /\r\n", id="http-0.9"),
        pytest.param(b"M" * 33, id="long-word"),
        pytest.param(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", id="proxy-protocol"),
    ],
)
def test_what_is_not_http(data: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        check_begin(bytearray(data))
    assert (caught.value.code, caught.value.status) == (Fault.NOT_TLS_OR_HTTP, 400)


def test_split_head_keeps_names_as_written() -> None:
    raw = split_head(b"GET /p HTTP/1.1\r\nHoSt: a\r\nX:\t b c \t\r\nx:\r\n\r\n")
    assert raw[:3] == (b"GET", b"/p", b"1.1")
    assert raw.fields == [(b"HoSt", b"a"), (b"X", b"b c"), (b"x", b"")]
    assert raw.values == {b"host": [b"a"], b"x": [b"b c", b""]}


def test_as_many_fields_as_allowed() -> None:
    line = b"a: b\r\n"
    assert split_head(b"GET / HTTP/1.1\r\n" + line * MAX_FIELDS + b"\r\n").fields
    with pytest.raises(HttpError) as caught:
        split_head(b"GET / HTTP/1.1\r\n" + line * (MAX_FIELDS + 1) + b"\r\n")
    assert (caught.value.code, caught.value.status) == (Fault.HEAD_TOO_LARGE, 431)

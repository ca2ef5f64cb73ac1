"""An upstream's connection: requests written from facts, responses framed or refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import WireError
from egressproxy.names import DnsName
from egressproxy.wire.http_authority import Authority
from egressproxy.wire.http_request import RequestHead
from egressproxy.wire.http_response import ResponseEnd, ResponseEvent, ResponseHead, Upstream

CHUNKED_OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def request(
    method: bytes = b"GET",
    *,
    content_length: int | None = None,
    is_chunked: bool = False,
    is_last: bool = False,
    is_websocket: bool = False,
) -> RequestHead:
    return RequestHead(
        method=method,
        authority=Authority(DnsName("a.example"), None, 80),
        host=b"a.example",
        target=b"/p",
        fields=[(b"X-Y", b"z")],
        content_length=content_length,
        is_chunked=is_chunked,
        is_last=is_last,
        is_websocket=is_websocket,
        accept=b"",
    )


def upstream(head: RequestHead | None = None) -> Upstream:
    made = Upstream(max_head_bytes=4096)
    made.send_head(head or request())
    made.send_end([])
    return made


def events(peer: Upstream, data: bytes, *, eof: bool = False) -> list[ResponseEvent]:
    if data:
        peer.feed(data)
    if eof:
        peer.feed_eof()
    found: list[ResponseEvent] = []
    while (event := peer.next_event()) is not None:
        found.append(event)
        if isinstance(event, ResponseEnd):
            break
    return found


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (request(), b"GET /p HTTP/1.1\r\nHost: a.example\r\nX-Y: z\r\n\r\n"),
        (
            request(b"POST", content_length=0),
            b"POST /p HTTP/1.1\r\nHost: a.example\r\nX-Y: z\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            request(b"POST", is_chunked=True),
            b"POST /p HTTP/1.1\r\nHost: a.example\r\nX-Y: z\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            request(is_last=True),
            b"GET /p HTTP/1.1\r\nHost: a.example\r\nX-Y: z\r\nConnection: close\r\n\r\n",
        ),
        (
            request(is_websocket=True, is_last=True),
            b"GET /p HTTP/1.1\r\nHost: a.example\r\nX-Y: z\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\n\r\n",
        ),
    ],
    ids=["plain", "length", "chunked", "last", "websocket"],
)
def test_a_request_is_written_from_facts(head: RequestHead, sent: bytes) -> None:
    assert b"".join(Upstream(max_head_bytes=4096).send_head(head)) == sent


@pytest.mark.parametrize(
    ("method", "data", "expected", "goes_on"),
    [
        pytest.param(
            b"GET",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            [ResponseHead(200, b"OK", [(b"Content-Length", b"2")]), b"ok", ResponseEnd([])],
            True,
            id="length",
        ),
        pytest.param(
            b"GET",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nok\r\n0\r\nT: 1\r\nHost: x\r\n\r\n",
            [ResponseHead(200, b"OK", []), b"ok", ResponseEnd([(b"T", b"1")])],
            True,
            id="chunked",
        ),
        pytest.param(
            b"HEAD",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            [ResponseHead(200, b"OK", [(b"Content-Length", b"2")]), ResponseEnd([])],
            True,
            id="head",
        ),
        pytest.param(
            b"GET",
            b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\nA: b\r\n\r\n",
            [ResponseHead(204, b"No Content", [(b"A", b"b")]), ResponseEnd([])],
            True,
            id="204-drops-length",
        ),
        pytest.param(
            b"GET",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
            [ResponseHead(304, b"Not Modified", [(b"Content-Length", b"2")]), ResponseEnd([])],
            True,
            id="304-keeps-length",
        ),
        pytest.param(
            b"GET",
            b"HTTP/1.1 100 Continue\r\nContent-Length: 9\r\n\r\nHTTP/1.1 204 \r\n\r\n",
            [ResponseHead(100, b"Continue", []), ResponseHead(204, b"", []), ResponseEnd([])],
            True,
            id="interim",
        ),
        pytest.param(
            b"GET",
            b"HTTP/1.1 200 OK\r\nConnection: close, X-A\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n",
            [ResponseHead(200, b"OK", [(b"Content-Length", b"0")]), ResponseEnd([])],
            False,
            id="close",
        ),
        pytest.param(
            b"GET",
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
            [ResponseHead(200, b"OK", [(b"Content-Length", b"0")]), ResponseEnd([])],
            False,
            id="http-1.0-keep-alive",
        ),
        pytest.param(
            b"GET",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            [ResponseHead(200, b"OK", [(b"Content-Length", b"0")]), ResponseEnd([])],
            False,
            id="a-response-too-many",
        ),
        pytest.param(
            b"GET",
            b"HTTP/1.1 200 OK\nA: b\n c\nContent-Length: 0\n\n",
            [
                ResponseHead(200, b"OK", [(b"A", b"b c"), (b"Content-Length", b"0")]),
                ResponseEnd([]),
            ],
            True,
            id="bare-lf-and-fold-are-forgiven",
        ),
    ],
)
def test_responses(
    method: bytes, data: bytes, expected: list[ResponseEvent], goes_on: bool
) -> None:
    peer = upstream(request(method))
    assert events(peer, data) == expected
    assert peer.can_go_on is goes_on


def test_a_response_framed_by_close() -> None:
    peer = upstream()
    assert events(peer, b"HTTP/1.1 200 OK\r\n\r\nok") == [ResponseHead(200, b"OK", []), b"ok"]
    assert events(peer, b"", eof=True) == [ResponseEnd([])]
    assert not peer.can_go_on


@pytest.mark.parametrize(
    ("head", "data"),
    [
        pytest.param(request(), b"nonsense\r\n\r\n", id="nonsense"),
        pytest.param(request(), b"\x16\x03\x01", id="tls"),
        pytest.param(request(), b"HTTP/1.1 99 X\r\n\r\n", id="status-99"),
        pytest.param(
            request(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            id="cl-te",
        ),
        pytest.param(
            request(), b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", id="chunked-1.0"
        ),
        pytest.param(
            request(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", id="te-gzip"
        ),
        pytest.param(
            request(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            id="cl-cl",
        ),
        pytest.param(request(), b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", id="nul"),
        pytest.param(request(), b"HTTP/1.1 200 OK\r\nX: " + b"y" * 5000, id="head-too-large"),
        pytest.param(
            request(),
            b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            id="101-not-asked",
        ),
        pytest.param(
            request(is_websocket=True), b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\n\r\n", id="101-other"
        ),
        pytest.param(
            request(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", id="chunk"
        ),
    ],
)
def test_malformed(head: RequestHead, data: bytes) -> None:
    peer = upstream(head)
    with pytest.raises(WireError) as caught:
        events(peer, data)
    assert caught.value.code == "malformed_response"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    ],
    ids=["nothing", "part-of-head", "part-of-length", "part-of-chunks"],
)
def test_cut_by_the_end(data: bytes) -> None:
    with pytest.raises(WireError):
        events(upstream(), data, eof=True)


def test_a_websocket_and_what_follows() -> None:
    peer = upstream(request(is_websocket=True))
    data = (
        b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nSec-A: b\r\n\r\n\x81\x01"
    )
    assert events(peer, data) == [ResponseHead(101, b"X", [(b"Sec-A", b"b")])]
    assert peer.take_rest() == b"\x81\x01"


def test_one_connection_for_many_requests() -> None:
    peer, told = upstream(), []
    for _ in range(3):
        told.append(peer.has_answered)
        events(peer, b"HTTP/1.1 204 X\r\n\r\n")
        told.append(peer.has_answered)
        peer.send_head(request())
        peer.send_end([])
    assert told == [False, True] * 3


@given(st.binary(max_size=60), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", CHUNKED_OK]))
def test_garbage_raises_nothing_but_wire_errors(garbage: bytes, prefix: bytes) -> None:
    peer = upstream()
    with contextlib.suppress(WireError):
        events(peer, prefix + garbage, eof=True)


def test_a_body_is_sent_with_its_framing() -> None:
    peer = Upstream(max_head_bytes=4096)
    sent = b"".join(
        [
            *peer.send_head(request(method=b"POST", is_chunked=True)),
            *peer.send_body(b"hello"),
            *peer.send_end([(b"Checksum", b"1")]),
        ]
    )
    assert sent.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\nChecksum: 1\r\n\r\n")

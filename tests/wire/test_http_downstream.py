"""The client's connection: bodies, pipelining, splits, and answers that each client understands."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from typing import TYPE_CHECKING

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import HttpError, WireError
from egressproxy.wire.fault import Fault
from egressproxy.wire.http_downstream import Downstream
from egressproxy.wire.http_response import ResponseHead

if TYPE_CHECKING:
    from collections.abc import Iterable

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'3;ext="1"\r\nhel\r\n2\r\nlo\r\n0\r\nChecksum: 1\r\nHost: b.example\r\n\r\n'
)
OK = ResponseHead(200, b"OK", [(b"Content-Length", b"2")])


def downstream(data: bytes = b"", max_head_bytes: int = 4096) -> Downstream:
    made = Downstream(port=80, max_head_bytes=max_head_bytes)
    if data:
        made.feed(data)
    return made


def answer(peer: Downstream) -> bytes:
    sent = [*peer.send_head(OK, close=False), *peer.send_body(b"ok"), *peer.send_end([])]
    return b"".join(sent)


def cycle(peer: Downstream) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]] | None:
    """One whole request and its answer: target, body, trailers."""
    head = peer.next_head()
    if head is None:
        return None
    part = peer.read_body()
    assert part.trailers is not None
    answer(peer)
    assert peer.can_go_on
    peer.next_cycle()
    return head.target, part.data, part.trailers


def run(pieces: Iterable[bytes]) -> tuple[list[object], Fault | None, int]:
    """Everything that comes of bytes in pieces, and the fault and status that end it."""
    peer, body, is_open = downstream(), b"", False
    seen: list[object] = []
    try:
        for piece in pieces:
            peer.feed(piece)
            while True:
                if not is_open:
                    head = peer.next_head()
                    if head is None:
                        break
                    seen.append(head)
                    is_open, body = True, b""
                part = peer.read_body()
                body += part.data
                if part.trailers is None:
                    break
                seen += [body, part.trailers]
                answer(peer)
                if not peer.can_go_on:
                    return seen, None, 0
                peer.next_cycle()
                is_open = False
    except HttpError as error:
        return seen, Fault(error.code), error.status
    return seen, None, 0


@pytest.mark.parametrize(
    ("data", "body", "trailers"),
    [(GET, b"", []), (POST, b"hello", []), (CHUNKED, b"hello", [(b"Checksum", b"1")])],
    ids=["none", "length", "chunked"],
)
def test_a_body_and_what_follows_it(
    data: bytes, body: bytes, trailers: list[tuple[bytes, bytes]]
) -> None:
    peer = downstream(data + GET.replace(b"/ ", b"/2 "))
    assert cycle(peer) == (b"/", body, trailers)
    assert cycle(peer) == (b"/2", b"", [])
    assert cycle(peer) is None


def test_pipelined_requests_wait_unread() -> None:
    peer = downstream(GET + GET)
    assert peer.next_head() is not None
    assert peer.read_body().trailers == []
    assert peer.buffered == len(GET)


def test_a_body_streams() -> None:
    peer = downstream(POST[:-3])
    assert peer.next_head() is not None
    assert peer.read_body() == (b"he", None)
    assert peer.read_body() == (b"", None)
    peer.feed(b"llo")
    assert peer.read_body() == (b"llo", [])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"-1\r\n", id="negative"),
        pytest.param(b"+5\r\nhello\r\n", id="plus"),
        pytest.param(b"0x5\r\nhello\r\n", id="hex-prefix"),
        pytest.param(b"5 5\r\nhello\r\n", id="space"),
        pytest.param(b"\r\n5\r\nhello\r\n", id="empty-line"),
        pytest.param(b"5\nhello\n\r\n", id="bare-lf"),
        pytest.param(b"5;a\nb\r\nhello\r\n", id="lf-in-extension"),
        pytest.param(b"fffffffffffffffffffff\r\n", id="overflow"),
        pytest.param(b"3\r\nhello\r\n", id="longer-than-said"),
        pytest.param(b"5\r\nhelloX\r\n", id="no-end-of-chunk"),
        pytest.param(b"0\r\nX : y\r\n\r\n", id="trailer-space"),
        pytest.param(b"0\r\nTransfer-Encoding: x\r\n\r\n", id="trailer-te"),
        pytest.param(b"5;" + b"x" * 17000, id="endless-extension"),
        pytest.param(b"0\r\nX: " + b"y" * 17000, id="endless-trailer"),
    ],
)
def test_broken_chunks(body: bytes) -> None:
    peer = downstream(CHUNKED[: CHUNKED.index(b"3;")] + body)
    assert peer.next_head() is not None
    with pytest.raises(HttpError) as caught:
        peer.read_body()
    assert (caught.value.code, caught.value.status) == (Fault.AMBIGUOUS_REQUEST, 400)


@pytest.mark.parametrize(
    ("version", "response", "expected", "goes_on"),
    [
        pytest.param(
            b"1.1",
            [(b"Content-Length", b"2")],
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            True,
            id="length",
        ),
        pytest.param(
            b"1.1",
            [],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: 1\r\n\r\n",
            True,
            id="chunks-and-trailers",
        ),
        pytest.param(
            b"1.0",
            [],
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
            False,
            id="close-1.0",
        ),
        pytest.param(
            b"1.0",
            [(b"Content-Length", b"2")],
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            False,
            id="length-1.0",
        ),
    ],
)
def test_framing_that_the_client_understands(
    version: bytes, response: list[tuple[bytes, bytes]], expected: bytes, goes_on: bool
) -> None:
    peer = downstream(GET.replace(b"1.1", version))
    assert peer.next_head() is not None
    peer.read_body()
    trailers = [] if response else [(b"T", b"1")]
    sent = [
        *peer.send_head(ResponseHead(200, b"OK", response), close=False),
        *peer.send_body(b"ok"),
        *peer.send_end(trailers),
    ]
    assert b"".join(sent) == expected
    assert peer.can_go_on is goes_on


@pytest.mark.parametrize(
    ("version", "sent"), [(b"1.1", b"HTTP/1.1 103 Early\r\n\r\n"), (b"1.0", b"")]
)
def test_interim_responses_are_not_for_http_1_0(version: bytes, sent: bytes) -> None:
    peer = downstream(GET.replace(b"1.1", version))
    assert peer.next_head() is not None
    peer.read_body()
    assert b"".join(peer.send_head(ResponseHead(103, b"Early", []), close=False)) == sent


def test_the_last_response_says_so() -> None:
    peer = downstream(GET)
    assert peer.next_head() is not None
    peer.read_body()
    assert b"Connection: close\r\n" in b"".join(peer.send_head(OK, close=True))


def test_what_one_reader_takes_and_another_refuses_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_self: object) -> None:
        raise h11.RemoteProtocolError("no")

    monkeypatch.setattr(h11.Connection, "next_event", refuse)
    with pytest.raises(HttpError) as caught:
        downstream(GET).next_head()
    assert caught.value.code == Fault.AMBIGUOUS_REQUEST


def test_what_two_readers_read_differently_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = h11.Request(method="GET", target="/other", headers=[("Host", "a.example")])
    monkeypatch.setattr(h11.Connection, "next_event", lambda _self: other)
    with pytest.raises(HttpError) as caught:
        downstream(GET).next_head()
    assert caught.value.code == Fault.AMBIGUOUS_REQUEST


@pytest.mark.parametrize("later", [b"EHLO x", b"\r\nGET / HTTP/1.1", b"G(T / HTTP/1.1"])
def test_a_later_request_that_is_no_http_is_ambiguous(later: bytes) -> None:
    peer = downstream(GET + later + b"\r\n\r\n")
    assert cycle(peer) is not None
    with pytest.raises(HttpError) as caught:
        peer.next_head()
    assert caught.value.code == Fault.AMBIGUOUS_REQUEST


STREAMS = [
    GET + GET,
    b"\r\n" + GET + b"\r\n" + GET,
    POST + CHUNKED + GET,
    CHUNKED + CHUNKED + POST,
    GET + b"GET / HTTP/1.1\nHost: a.example\n\n",
    POST + b"GET / HTTP/1.1\r\nHost: a.example\r\n b\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n" + GET,
    CHUNKED[:-30] + b"\r\n",
    b"SSH-2.0-x y\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a.example, b\r\n\r\n",
]


@pytest.mark.parametrize("stream", STREAMS, ids=range(len(STREAMS)))
def test_byte_by_byte_is_the_same_as_whole(stream: bytes) -> None:
    assert run(stream[at : at + 1] for at in range(len(stream))) == run([stream])


@given(stream=st.sampled_from(STREAMS), cuts=st.lists(st.integers(0, 300), max_size=8))
def test_any_split_is_the_same_as_whole(stream: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    assert run(pieces) == run([stream])


@given(
    prefix=st.sampled_from([GET, POST, CHUNKED, b""]),
    length=st.integers(0, 200),
    garbage=st.binary(max_size=80),
)
def test_a_valid_prefix_and_garbage_raises_nothing_but_wire_errors(
    prefix: bytes, length: int, garbage: bytes
) -> None:
    peer = downstream(prefix[:length] + garbage)
    with contextlib.suppress(WireError):
        while cycle_or_stop(peer):
            pass


def cycle_or_stop(peer: Downstream) -> bool:
    if peer.next_head() is None or peer.read_body().trailers is None:
        return False
    answer(peer)
    if not peer.can_go_on:
        return False
    peer.next_cycle()
    return True


def test_a_carriage_return_that_begins_no_empty_line() -> None:
    peer = downstream(b"\r")
    assert peer.next_head() is None
    peer.feed(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(HttpError) as caught:
        peer.next_head()
    assert caught.value.code in (Fault.NOT_TLS_OR_HTTP, Fault.AMBIGUOUS_REQUEST)


def test_a_websocket_and_what_follows_its_request() -> None:
    peer = downstream(
        b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    head = peer.next_head()
    assert head is not None
    assert head.is_websocket
    assert peer.read_body().trailers == []
    peer.feed(b"frame")
    sent = b"".join(peer.send_head(ResponseHead(101, b"Switching Protocols", []), close=False))
    assert sent.startswith(b"HTTP/1.1 101 ")
    assert b"Upgrade: websocket\r\n" in sent
    assert peer.take_rest() == b"frame"
    assert peer.buffered == 0

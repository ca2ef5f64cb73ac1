"""Nothing that was not judged is forwarded: a corpus of smuggling, and fuzz, with two readers.

Whatever the session sends upstream is read by h11 and by ``http.server``, which share no code. Both
must find exactly one request, with the Host that was judged, and not a byte more.
"""

from __future__ import annotations

import io
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from typing import TYPE_CHECKING

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.planes.http_commands import Dial, RefuseClient, SendUpstream
from egressproxy.planes.http_session import HttpSession
from egressproxy.policy.verdict import Action, Reason, Verdict

if TYPE_CHECKING:
    from egressproxy.planes.http_commands import Command
    from egressproxy.wire.http_authority import Authority

ALLOW = Verdict(Action.ALLOW, Reason.RULE, "r")
EVIL = b"GET /evil HTTP/1.1\r\nHost: evil.example\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: ok.example\r\n"
SMUGGLED = [
    pytest.param(
        POST
        + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % len(EVIL)
        + EVIL,
        "ambiguous_request",
        id="cl-te",
    ),
    pytest.param(
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + EVIL,
        "ambiguous_request",
        id="te-cl",
    ),
    pytest.param(
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="te-te",
    ),
    pytest.param(
        POST + b"Transfer-Encoding: \tchunked, identity\r\n\r\n0\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="te-list",
    ),
    pytest.param(
        POST + b"Transfer-Encoding\x0b: chunked\r\n\r\n0\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="te-vt",
    ),
    pytest.param(
        POST + b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="te-after-lf",
    ),
    pytest.param(
        POST + b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="te-folded",
    ),
    pytest.param(
        POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="cl-cl",
    ),
    pytest.param(
        POST + b"Content-Length: 0, 44\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="cl-list",
    ),
    pytest.param(
        POST + b"Content-Length: +44\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="cl-plus",
    ),
    pytest.param(
        POST + b"Content-Length: -1\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="cl-minus",
    ),
    pytest.param(
        POST + b"Content-Length: 4 4\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="cl-space",
    ),
    pytest.param(
        POST + b"Content-Length: 18446744073709551660\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="cl-wraps",
    ),
    pytest.param(
        POST + b"Connection: Content-Length\r\nContent-Length: 44\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="cl-nominated",
    ),
    pytest.param(
        POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="te-1.0",
    ),
    pytest.param(
        POST + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + EVIL,
        "body",
        id="chunk-wraps",
    ),
    pytest.param(
        POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + EVIL,
        "ambiguous_request",
        id="chunk-minus",
    ),
    pytest.param(
        POST + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="chunk-prefix",
    ),
    pytest.param(
        POST + b"Transfer-Encoding: chunked\r\n\r\n0;\n\r\n" + EVIL,
        "ambiguous_request",
        id="chunk-extension-lf",
    ),
    pytest.param(
        POST + b'Transfer-Encoding: chunked\r\n\r\n0;a="\r\n\r\n' + EVIL + b'"\r\n\r\n',
        "next",
        id="chunk-extension-quoted",
    ),
    pytest.param(
        POST + b"Transfer-Encoding: chunked\r\n\r\n3;x\r\nabcX\r\n0\r\n\r\n" + EVIL,
        "ambiguous_request",
        id="chunk-too-long",
    ),
    pytest.param(
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nHost: evil.example\r\n\r\n" + EVIL,
        "next",
        id="trailer-host",
    ),
    pytest.param(
        b"GET /\r\nHost: evil.example\r\n\r\n HTTP/1.1\r\nHost: ok.example\r\n\r\n",
        "not_tls_or_http",
        id="crlf-in-target",
    ),
    pytest.param(
        b"GET / HTTP/1.1\r\nHost: ok.example\r\nX: a\r\n\nHost: evil.example\r\n\r\n",
        "ambiguous_request",
        id="crlf-lf",
    ),
    pytest.param(
        b"GET / HTTP/1.1\r\nHost: ok.example\r\nHost: evil.example\r\n\r\n",
        "ambiguous_request",
        id="two-hosts",
    ),
    pytest.param(
        b"GET / HTTP/1.1\r\n Host: evil.example\r\nHost: ok.example\r\n\r\n",
        "ambiguous_request",
        id="folded-host",
    ),
    pytest.param(
        b"GET / HTTP/1.1\r\nHost: ok.example\r\nX-Y\r\nHost : evil.example\r\n\r\n",
        "ambiguous_request",
        id="host-space",
    ),
    pytest.param(
        b"GET http://evil.example/ HTTP/1.1\r\nHost: ok.example\r\n\r\n",
        "host_mismatch",
        id="absolute",
    ),
    pytest.param(
        b"GET http://ok.example@evil.example/ HTTP/1.1\r\nHost: ok.example\r\n\r\n",
        "ambiguous_request",
        id="userinfo",
    ),
    pytest.param(
        b"GET / HTTP/1.1\r\nHost: ok.example\r\nContent-Length: %d\r\nUpgrade: websocket\r\n"
        b"Connection: upgrade\r\n\r\n" % len(EVIL) + EVIL + EVIL,
        "next",
        id="websocket-with-body",
    ),
    pytest.param(
        b"GET / HTTP/1.1\r\nHost: ok.example\r\n\r\n" + EVIL,
        "next",
        id="pipelined",
    ),
    pytest.param(
        b"CONNECT ok.example:80 HTTP/1.1\r\nHost: ok.example\r\n\r\n" + EVIL,
        "h2c_refused",
        id="connect",
    ),
    pytest.param(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + EVIL,
        "h2c_refused",
        id="h2",
    ),
]


def judge(authority: Authority | None, fault: Reason | None) -> Verdict:
    if fault is None and authority is not None and authority.name == "ok.example":
        return ALLOW
    return Verdict(Action.DENY, fault or Reason.DEFAULT_DENY)


def play(pieces: list[bytes], *, answer: bool = False) -> list[Command]:
    """All commands; the upstream answers, or never does."""
    session = HttpSession(judge, port=80)
    seen: list[Command] = []
    for piece in pieces:
        commands = session.receive_client(piece)
        for command in [*commands]:
            if isinstance(command, Dial):
                assert command.authority is not None
                assert command.authority.name == "ok.example"
                commands += session.upstream_connected(command.upstream)
        seen += commands
    if answer:
        seen += session.receive_upstream(1, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    return seen


def sent_up(commands: list[Command]) -> bytes:
    return b"".join(each.data for each in commands if isinstance(each, SendUpstream))


def read_by_h11(data: bytes) -> tuple[bytes, bytes, bytes, bool]:
    """Method, target, body, and whether it is complete; asserts that there is no more."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    head = connection.next_event()
    assert type(head) is h11.Request
    assert [value for name, value in head.headers if name == b"host"] == [b"ok.example"]
    body = b""
    while type(event := connection.next_event()) is h11.Data:
        body += event.data
    is_complete = type(event) is h11.EndOfMessage
    assert is_complete or event is h11.NEED_DATA
    assert not is_complete or connection.trailing_data[0] == b""
    return head.method, head.target, body, is_complete


class Handler(BaseHTTPRequestHandler):
    """The standard library's reader on bytes."""

    def __init__(self, data: bytes) -> None:
        self.rfile = io.BytesIO(data)
        self.wfile = io.BytesIO()
        self.client_address = ("192.0.2.1", 1)
        self.raw_requestline = self.rfile.readline(65537)
        self.is_valid = self.parse_request()

    def log_message(self, *_args: object) -> None:
        pass


def read_by_http_server(data: bytes) -> tuple[bytes, bytes, bytes, bool]:
    """As ``read_by_h11``."""
    handler = Handler(data)
    assert handler.is_valid
    assert handler.headers.get_all("host") == ["ok.example"]
    length, coding = handler.headers.get("content-length"), handler.headers.get("transfer-encoding")
    assert length is None or coding is None
    rest = handler.rfile.read()
    if coding is not None:
        assert coding == "chunked"
        body, is_complete = dechunk(rest)
    else:
        body, is_complete = rest, len(rest) == int(length or 0)
        assert len(rest) <= int(length or 0)
    return handler.command.encode(), handler.path.encode(), body, is_complete


def dechunk(data: bytes) -> tuple[bytes, bool]:
    """A reader that takes only what RFC 9112 section 7.1 has to be sent."""
    body = b""
    while data:
        line, end, data = data.partition(b"\r\n")
        assert end
        assert line == b"%x" % int(line, 16)
        size = int(line, 16)
        if not size:
            assert data == b"\r\n" or (data.endswith(b"\r\n\r\n") and b"\r\n\r\n" not in data[:-4])
            return body, True
        body += data[:size]
        assert data[size : size + 2] == b"\r\n"
        data = data[size + 2 :]
    return body, False


def check(pieces: list[bytes]) -> list[Command]:
    commands = play(pieces)
    forwarded = sent_up(commands)
    if forwarded:
        assert read_by_http_server(forwarded) == read_by_h11(forwarded)
    return commands


@pytest.mark.parametrize(("data", "outcome"), SMUGGLED)
@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "byte-by-byte"])
def test_corpus(data: bytes, outcome: str, is_whole: bool) -> None:
    """``outcome``: a refusal's reason, ``next`` (judged by itself), ``body`` (of the first)."""
    pieces = [data] if is_whole else [data[at : at + 1] for at in range(len(data))]
    commands = check(pieces)
    forwarded = sent_up(commands)
    assert b"evil" not in forwarded.partition(b"\r\n\r\n")[0]
    if outcome == "body":
        assert b"evil" in read_by_h11(forwarded)[2]
    elif outcome == "next":
        assert read_by_h11(forwarded)[3]
        assert isinstance(commands[-1], SendUpstream)
        last = play(pieces, answer=True)[-1]
        assert isinstance(last, RefuseClient)
        assert b"evil.example" in last.data
    else:
        assert isinstance(commands[-1], RefuseClient)
        assert f"reason: {outcome}\n".encode() in commands[-1].data


NASTY = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"\x00",
    b"\t",
    b" ",
    b"\x0b",
    b"\xff",
    b":",
    b",",
    b";",
    b"0",
    b"-",
    b"+",
    b"@",
    b"#",
    b"\\",
    b"%",
    b"\r\n ",
    b"chunked",
    b"Host: evil.example\r\n",
    b"\r\nHost: evil.example",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Upgrade: websocket\r\n",
    b"HTTP/1.0",
    b"http://evil.example",
]
SEEDS = [
    b"GET /p?q HTTP/1.1\r\nHost: ok.example\r\nUser-Agent: x\r\n\r\n",
    b"GET http://ok.example/p HTTP/1.1\r\nHost: ok.example\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: OK.example.\r\nConnection: a, b\r\nA: 1\r\n\r\n",
    POST + b"Content-Length: 5\r\n\r\nhello" + EVIL,
    POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: 1\r\n\r\n" + EVIL,
    b"HEAD / HTTP/1.0\r\nHost: ok.example\r\n\r\n",
]


@st.composite
def fuzzed(draw: st.DrawFn) -> list[bytes]:
    """A request with some nasty bytes put in or over it, in one to three pieces."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        over = draw(st.integers(0, 3))
        data = data[:at] + draw(st.sampled_from(NASTY)) + data[at + over :]
    cuts = sorted(draw(st.lists(st.integers(1, len(data)), max_size=2)))
    edges = [0, *cuts, len(data)]
    return [piece for a, b in pairwise(edges) if (piece := data[a:b])]


@given(fuzzed())
def test_what_is_forwarded_is_one_request_to_every_reader(pieces: list[bytes]) -> None:
    check(pieces)


@given(fuzzed())
def test_a_split_changes_nothing(pieces: list[bytes]) -> None:
    split, whole = play(pieces), play([b"".join(pieces)])
    assert [type(each) for each in split[-1:]] == [type(each) for each in whole[-1:]]
    assert bool(sent_up(split)) == bool(sent_up(whole))
    if sent_up(split):
        (*head, body, is_complete), (*other_head, other_body, other) = (
            read_by_h11(sent_up(split)),
            read_by_h11(sent_up(whole)),
        )
        assert (head, is_complete) == (other_head, other)
        # Of a body that breaks off, more or less was forwarded before it did.
        assert body.startswith(other_body)
        assert body == other_body or not is_complete


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=4))
def test_garbage_is_never_forwarded(pieces: list[bytes]) -> None:
    assert sent_up(play(pieces)) == b""

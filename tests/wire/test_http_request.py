"""Request heads: what is read, what is refused, with which fault and status."""

from __future__ import annotations

import pytest

from egressproxy.errors import HttpError
from egressproxy.wire.fault import Fault
from egressproxy.wire.http_downstream import Downstream
from egressproxy.wire.http_request import RequestHead, is_connect, parse_connect

AMBIGUOUS = Fault.AMBIGUOUS_REQUEST


def read(data: bytes, port: int | None = 80) -> RequestHead:
    """The head at the begin of ``data``, through the whole reader (h11 included)."""
    downstream = Downstream(port=port, max_head_bytes=4096)
    downstream.feed(data)
    head = downstream.next_head()
    assert head is not None
    return head


def get(*lines: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"a.example") -> bytes:
    hosts = [b"Host: " + host] if host else []
    return b"\r\n".join([line, *hosts, *lines]) + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "port", "authority", "host", "target"),
    [
        pytest.param(get(), 80, "a.example:80", b"a.example", b"/", id="origin-form"),
        pytest.param(
            get(line=b"GET /p?q=/%20&r=? HTTP/1.1"),
            80,
            "a.example:80",
            b"a.example",
            b"/p?q=/%20&r=?",
            id="query",
        ),
        pytest.param(
            get(host=b"A.Example.:8080"),
            80,
            "a.example:80",
            b"a.example:8080",
            b"/",
            id="transparent-port-is-the-flow's",
        ),
        pytest.param(get(), 8080, "a.example:8080", b"a.example", b"/", id="other-port-unwritten"),
        pytest.param(
            get(line=b"GET HTTP://A.example:80/p HTTP/1.1", host=b"a.example"),
            80,
            "a.example:80",
            b"a.example:80",
            b"/p",
            id="transparent-absolute-form",
        ),
        pytest.param(
            get(line=b"GET http://a.example:8080?q HTTP/1.1", host=b"a.example:8080"),
            None,
            "a.example:8080",
            b"a.example:8080",
            b"/?q",
            id="explicit-query-alone",
        ),
        pytest.param(
            get(line=b"GET http://a.example HTTP/1.1"),
            None,
            "a.example:80",
            b"a.example",
            b"/",
            id="explicit-no-path",
        ),
        pytest.param(
            get(line=b"GET http://a.example:81/ HTTP/1.1", host=b"a.example"),
            None,
            "a.example:81",
            b"a.example:81",
            b"/",
            id="explicit-target's-port-wins",
        ),
        pytest.param(
            get(line=b"OPTIONS http://a.example HTTP/1.1"),
            None,
            "a.example:80",
            b"a.example",
            b"*",
            id="explicit-options-star",
        ),
        pytest.param(
            get(line=b"OPTIONS * HTTP/1.1"),
            80,
            "a.example:80",
            b"a.example",
            b"*",
            id="options",
        ),
        pytest.param(
            get(line=b"GET //b.example/p HTTP/1.1"),
            80,
            "a.example:80",
            b"a.example",
            b"//b.example/p",
            id="path-like-authority",
        ),
        pytest.param(
            get(host=b"10.0.0.1:80"),
            80,
            "10.0.0.1:80",
            b"10.0.0.1:80",
            b"/",
            id="ipv4",
        ),
        pytest.param(
            get(host=b"[2001:DB8::1]"),
            80,
            "[2001:db8::1]:80",
            b"[2001:db8::1]",
            b"/",
            id="ipv6",
        ),
        pytest.param(
            get(line=b"GET / HTTP/1.0"),
            80,
            "a.example:80",
            b"a.example",
            b"/",
            id="http-1.0",
        ),
        pytest.param(b"\r\n" + get(), 80, "a.example:80", b"a.example", b"/", id="one-empty-line"),
    ],
)
def test_whom_a_request_is_for(
    data: bytes, port: int | None, authority: str, host: bytes, target: bytes
) -> None:
    head = read(data, port)
    assert (str(head.authority), head.host, head.target) == (authority, host, target)


@pytest.mark.parametrize(
    ("data", "fault", "status"),
    [
        # Host, RFC 9112 section 3.2
        pytest.param(get(host=b""), AMBIGUOUS, 400, id="host-missing"),
        pytest.param(get(line=b"GET / HTTP/1.0", host=b""), AMBIGUOUS, 400, id="host-missing-1.0"),
        pytest.param(get(b"Host:"), AMBIGUOUS, 400, id="host-twice-one-empty"),
        pytest.param(get(b"Host:", host=b""), AMBIGUOUS, 400, id="host-empty"),
        pytest.param(get(b"Host: a.example"), AMBIGUOUS, 400, id="host-twice-equal"),
        pytest.param(get(b"hOST: b.example"), AMBIGUOUS, 400, id="host-twice"),
        pytest.param(get(host=b"a.example, b.example"), AMBIGUOUS, 400, id="host-list"),
        pytest.param(get(host=b"u@a.example"), AMBIGUOUS, 400, id="host-userinfo"),
        pytest.param(get(host=b"a.example b"), AMBIGUOUS, 400, id="host-space"),
        pytest.param(get(host=b"a.example\tb"), AMBIGUOUS, 400, id="host-tab"),
        pytest.param(get(host=b"a.example:http"), AMBIGUOUS, 400, id="host-port-word"),
        pytest.param(get(host=b"http://a.example"), AMBIGUOUS, 400, id="host-url"),
        pytest.param(get(host=b"127.1"), Fault.IP_LITERAL, 403, id="host-odd-address"),
        # targets, RFC 9112 section 3.2
        pytest.param(
            get(line=b"GET http://b.example/ HTTP/1.1"),
            Fault.HOST_MISMATCH,
            400,
            id="absolute-other",
        ),
        pytest.param(
            get(line=b"GET http://a.example:80@b.example/ HTTP/1.1"), AMBIGUOUS, 400, id="userinfo"
        ),
        pytest.param(
            get(line=b"GET http://a.example\\@b.example/ HTTP/1.1"), AMBIGUOUS, 400, id="backslash"
        ),
        pytest.param(get(line=b"GET http:///p HTTP/1.1"), AMBIGUOUS, 400, id="absolute-no-host"),
        pytest.param(get(line=b"GET https://a.example/ HTTP/1.1"), AMBIGUOUS, 400, id="https"),
        pytest.param(get(line=b"GET ftp://a.example/ HTTP/1.1"), AMBIGUOUS, 400, id="ftp"),
        pytest.param(get(line=b"GET http:/a.example HTTP/1.1"), AMBIGUOUS, 400, id="one-slash"),
        pytest.param(get(line=b"GET a.example HTTP/1.1"), AMBIGUOUS, 400, id="no-slash"),
        pytest.param(get(line=b"GET a.example:80 HTTP/1.1"), AMBIGUOUS, 400, id="authority-form"),
        pytest.param(get(line=b"GET /#f HTTP/1.1"), AMBIGUOUS, 400, id="fragment"),
        pytest.param(get(line=b"GET /\xc3\xa9 HTTP/1.1"), AMBIGUOUS, 400, id="target-not-ascii"),
        pytest.param(get(line=b"GET /\x7f HTTP/1.1"), AMBIGUOUS, 400, id="target-del"),
        pytest.param(get(line=b"GET * HTTP/1.1"), AMBIGUOUS, 400, id="get-star"),
        # framing, RFC 9112 section 6
        pytest.param(
            get(b"Content-Length: 5", b"Transfer-Encoding: chunked"), AMBIGUOUS, 400, id="cl-te"
        ),
        pytest.param(
            get(b"Transfer-Encoding: chunked", b"Content-Length: 5"), AMBIGUOUS, 400, id="te-cl"
        ),
        pytest.param(
            get(b"Content-Length: 5", b"Content-Length: 5"), AMBIGUOUS, 400, id="cl-cl-equal"
        ),
        pytest.param(get(b"Content-Length: 5", b"Content-Length: 6"), AMBIGUOUS, 400, id="cl-cl"),
        pytest.param(get(b"Content-Length: 5, 5"), AMBIGUOUS, 400, id="cl-list"),
        pytest.param(get(b"Content-Length: +5"), AMBIGUOUS, 400, id="cl-plus"),
        pytest.param(get(b"Content-Length: -5"), AMBIGUOUS, 400, id="cl-minus"),
        pytest.param(get(b"Content-Length: 0x5"), AMBIGUOUS, 400, id="cl-hex"),
        pytest.param(get(b"Content-Length: 5 5"), AMBIGUOUS, 400, id="cl-space"),
        pytest.param(get(b"Content-Length: 5_0"), AMBIGUOUS, 400, id="cl-underscore"),
        pytest.param(get(b"Content-Length:"), AMBIGUOUS, 400, id="cl-empty"),
        pytest.param(get(b"Content-Length: \xb2"), AMBIGUOUS, 400, id="cl-superscript"),
        pytest.param(get(b"Content-Length: " + b"9" * 19), AMBIGUOUS, 400, id="cl-overflow"),
        pytest.param(get(b"Content-Length : 5"), AMBIGUOUS, 400, id="cl-space-before-colon"),
        pytest.param(
            get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
            AMBIGUOUS,
            400,
            id="te-te",
        ),
        pytest.param(
            get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x"),
            AMBIGUOUS,
            400,
            id="te-te-x",
        ),
        pytest.param(get(b"Transfer-Encoding: gzip, chunked"), AMBIGUOUS, 501, id="te-list"),
        pytest.param(
            get(b"Transfer-Encoding: chunked, identity"), AMBIGUOUS, 501, id="te-not-last"
        ),
        pytest.param(get(b"Transfer-Encoding: xchunked"), AMBIGUOUS, 501, id="te-x"),
        pytest.param(get(b"Transfer-Encoding: chunked;q=1"), AMBIGUOUS, 501, id="te-parameter"),
        pytest.param(get(b'Transfer-Encoding: "chunked"'), AMBIGUOUS, 501, id="te-quoted"),
        pytest.param(get(b"Transfer-Encoding:"), AMBIGUOUS, 501, id="te-empty"),
        pytest.param(get(b"Transfer-Encoding: \x0bchunked"), AMBIGUOUS, 400, id="te-vt"),
        pytest.param(get(b"Transfer-Encoding : chunked"), AMBIGUOUS, 400, id="te-space"),
        pytest.param(get(b"Transfer-Encoding\t: chunked"), AMBIGUOUS, 400, id="te-tab"),
        pytest.param(get(b"X: y", b" Transfer-Encoding: chunked"), AMBIGUOUS, 400, id="te-folded"),
        pytest.param(get(b"Transfer-Encoding:", b" chunked"), AMBIGUOUS, 400, id="te-value-folded"),
        pytest.param(
            get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"),
            AMBIGUOUS,
            400,
            id="chunked-1.0",
        ),
        pytest.param(get(b"Connection: Host"), AMBIGUOUS, 400, id="connection-host"),
        pytest.param(
            get(b"Content-Length: 5", b"Connection: close, Content-Length"),
            AMBIGUOUS,
            400,
            id="connection-cl",
        ),
        # bytes, RFC 9112 sections 2.2, 5.1, 5.2
        pytest.param(get(b"X: a\n b"), AMBIGUOUS, 400, id="bare-lf"),
        pytest.param(get(b"X: a\nHost: b.example"), AMBIGUOUS, 400, id="bare-lf-host"),
        pytest.param(get(b"X: a\rb"), AMBIGUOUS, 400, id="bare-cr"),
        pytest.param(get(b"X: a\r"), AMBIGUOUS, 400, id="cr-cr-lf"),
        pytest.param(get(b"X: a\x00b"), AMBIGUOUS, 400, id="nul"),
        pytest.param(get(b"X: a\x01b"), AMBIGUOUS, 400, id="control"),
        pytest.param(get(b"X: a\x7fb"), AMBIGUOUS, 400, id="del"),
        pytest.param(get(b"X: a", b"\tb"), AMBIGUOUS, 400, id="obs-fold-tab"),
        pytest.param(get(b"X : a"), AMBIGUOUS, 400, id="space-before-colon"),
        pytest.param(get(b": a"), AMBIGUOUS, 400, id="no-name"),
        pytest.param(get(b"no colon"), AMBIGUOUS, 400, id="no-colon"),
        pytest.param(get(b"X\xe9: a"), AMBIGUOUS, 400, id="name-not-ascii"),
        pytest.param(
            b"GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n", AMBIGUOUS, 400, id="fold-first"
        ),
        pytest.param(b"\r\n\r\n" + get(), Fault.NOT_TLS_OR_HTTP, 400, id="two-empty-lines"),
        # the request line
        pytest.param(get(line=b"GET  / HTTP/1.1"), AMBIGUOUS, 400, id="two-spaces"),
        pytest.param(get(line=b"GET /a b HTTP/1.1"), AMBIGUOUS, 400, id="space-in-target"),
        pytest.param(get(line=b"GET / HTTP/1.1 "), AMBIGUOUS, 400, id="space-at-end"),
        pytest.param(get(line=b" GET / HTTP/1.1"), AMBIGUOUS, 400, id="space-at-begin"),
        pytest.param(get(line=b"GET /\t HTTP/1.1"), AMBIGUOUS, 400, id="tab"),
        pytest.param(get(line=b"GET / HTTP/1.2"), AMBIGUOUS, 505, id="version-1.2"),
        pytest.param(get(line=b"GET / HTTP/2.0"), AMBIGUOUS, 505, id="version-2.0"),
        pytest.param(get(line=b"GET / HTTP/0.9"), AMBIGUOUS, 505, id="version-0.9"),
        pytest.param(get(line=b"GET / HTTP/1.10"), AMBIGUOUS, 400, id="version-1.10"),
        pytest.param(get(line=b"GET / HTTP/1"), AMBIGUOUS, 400, id="version-1"),
        pytest.param(get(line=b"GET / http/1.1"), Fault.NOT_TLS_OR_HTTP, 400, id="version-case"),
        pytest.param(get(line=b"G(T / HTTP/1.1"), Fault.NOT_TLS_OR_HTTP, 400, id="method-no-token"),
        pytest.param(
            get(line=b"G" * 33 + b" / HTTP/1.1"), Fault.NOT_TLS_OR_HTTP, 400, id="method-too-long"
        ),
        pytest.param(get(b"X: " + b"y" * 4096), Fault.HEAD_TOO_LARGE, 431, id="too-large"),
        pytest.param(get(*[b"X: y"] * 101), Fault.HEAD_TOO_LARGE, 431, id="too-many-fields"),
        # other protocols
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Fault.H2C_REFUSED, 505, id="h2-preface"),
        pytest.param(
            get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"),
            Fault.H2C_REFUSED,
            403,
            id="h2c",
        ),
        pytest.param(get(b"Upgrade: websocket, H2C"), Fault.H2C_REFUSED, 403, id="h2c-in-list"),
        pytest.param(get(b"HTTP2-Settings: AA"), Fault.H2C_REFUSED, 403, id="h2-settings-alone"),
        pytest.param(
            get(line=b"CONNECT a.example:443 HTTP/1.1"), Fault.H2C_REFUSED, 403, id="connect"
        ),
    ],
)
def test_refused_in_the_transparent_plane(data: bytes, fault: Fault, status: int) -> None:
    with pytest.raises(HttpError) as caught:
        read(data)
    assert (caught.value.code, caught.value.status) == (fault, status)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        pytest.param(get(), AMBIGUOUS, id="origin-form"),
        pytest.param(get(line=b"OPTIONS * HTTP/1.1"), AMBIGUOUS, id="options-star"),
        pytest.param(get(line=b"CONNECT a.example:443 HTTP/1.1"), AMBIGUOUS, id="connect-later"),
        pytest.param(get(line=b"GET http://b.example/ HTTP/1.1"), Fault.HOST_MISMATCH, id="other"),
        pytest.param(
            get(line=b"GET http://a.example/ HTTP/1.1", host=b""), AMBIGUOUS, id="host-missing"
        ),
    ],
)
def test_refused_in_the_explicit_plane(data: bytes, fault: Fault) -> None:
    with pytest.raises(HttpError) as caught:
        read(data, None)
    assert (caught.value.code, caught.value.status) == (fault, 400)


@pytest.mark.parametrize(
    ("data", "content_length", "is_chunked", "has_body"),
    [
        (get(), None, False, False),
        (get(b"Content-Length: 0"), 0, False, False),
        (get(b"Content-Length: 0005"), 5, False, True),
        (get(b"Transfer-Encoding: Chunked"), None, True, True),
    ],
)
def test_framing(data: bytes, content_length: int | None, is_chunked: bool, has_body: bool) -> None:
    head = read(data)
    assert (head.content_length, head.is_chunked, head.has_body) == (
        content_length,
        is_chunked,
        has_body,
    )


@pytest.mark.parametrize(
    ("data", "is_last"),
    [
        (get(), False),
        (get(b"Connection: keep-alive"), False),
        (get(b"Connection: Close"), True),
        (get(b"Connection: keep-alive, close"), True),
        (get(line=b"GET / HTTP/1.0"), True),
        (get(b"Connection: keep-alive", line=b"GET / HTTP/1.0"), True),
    ],
)
def test_persistence(data: bytes, is_last: bool) -> None:
    assert read(data).is_last is is_last


WEBSOCKET = (b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket", b"Sec-WebSocket-Key: x")


@pytest.mark.parametrize(
    ("data", "is_websocket"),
    [
        pytest.param(get(*WEBSOCKET), True, id="websocket"),
        pytest.param(get(*WEBSOCKET, b"Upgrade: irc"), True, id="among-others"),
        pytest.param(get(WEBSOCKET[1]), False, id="without-connection"),
        pytest.param(get(*WEBSOCKET, line=b"POST / HTTP/1.1"), False, id="not-get"),
        pytest.param(get(*WEBSOCKET, line=b"GET / HTTP/1.0"), False, id="http-1.0"),
        pytest.param(get(*WEBSOCKET, b"Content-Length: 1"), False, id="with-body"),
        pytest.param(get(*WEBSOCKET, b"Transfer-Encoding: chunked"), False, id="with-chunks"),
        pytest.param(get(b"Connection: Upgrade", b"Upgrade: TLS/1.0"), False, id="tls"),
    ],
)
def test_websocket(data: bytes, is_websocket: bool) -> None:
    head = read(data)
    assert head.is_websocket is is_websocket
    assert b"upgrade" not in {name.lower() for name, _ in head.fields}


def test_fields_in_order_without_hop_by_hop() -> None:
    head = read(
        get(
            b"B: 1",
            b"Connection: x-hop, TE",
            b"X-Hop: 1",
            b"TE: trailers",
            b"a:  2 ",
            b"B: 3",
            b"Keep-Alive: 5",
            b"Proxy-Connection: keep-alive",
            b"Expect: 100-continue",
            b"Accept: a/b",
            b"ACCEPT: c/d",
        )
    )
    assert head.fields == [
        (b"B", b"1"), (b"a", b"2"), (b"B", b"3"), (b"Expect", b"100-continue"),
        (b"Accept", b"a/b"), (b"ACCEPT", b"c/d"),
    ]  # fmt: skip
    assert head.accept == b"a/b, c/d"


def test_expect_of_an_http_1_0_client_is_ignored() -> None:
    assert read(get(b"Expect: 100-continue", line=b"POST / HTTP/1.0")).fields == []


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", None),
        (b"CON", None),
        (b"CONNECT", None),
        (b"CONNECT ", True),
        (b"CONNECTS", False),
        (b"GET ", False),
        (b"connect x", False),
    ],
)
def test_is_connect(data: bytes, expected: bool | None) -> None:
    assert is_connect(data) is expected


def connect(*lines: bytes, target: bytes = b"a.example:443", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"CONNECT " + target + b" HTTP/" + version, *lines]) + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "authority"),
    [
        pytest.param(connect(b"Host: a.example:443"), "a.example:443", id="usual"),
        pytest.param(connect(b"Host: A.example"), "a.example:443", id="host-without-port"),
        pytest.param(connect(version=b"1.0"), "a.example:443", id="http-1.0-without-host"),
        pytest.param(connect(b"Host: a.example", b"Content-Length: 0"), "a.example:443", id="cl-0"),
        pytest.param(
            connect(b"Host: [2001:db8::1]:443", target=b"[2001:db8::1]:443"),
            "[2001:db8::1]:443",
            id="ipv6",
        ),
        pytest.param(connect(b"Host: 10.0.0.1", target=b"10.0.0.1:1"), "10.0.0.1:1", id="ipv4"),
    ],
)
def test_connect(data: bytes, authority: str) -> None:
    found = parse_connect(data + b"\x16\x03\x01", 4096)
    assert found is not None
    assert (str(found.authority), found.size) == (authority, len(data))
    for end in range(len(data)):
        assert parse_connect(data[:end], 4096, max(0, end - 1)) is None


def test_connect_tells_what_its_refusal_should_be() -> None:
    found = parse_connect(connect(b"Host: a.example", b"Accept: application/json"), 4096)
    assert found is not None
    assert found.accept == b"application/json"


@pytest.mark.parametrize(
    ("data", "fault", "status"),
    [
        pytest.param(connect(), AMBIGUOUS, 400, id="host-missing"),
        pytest.param(connect(b"Host: b.example:443"), Fault.HOST_MISMATCH, 400, id="host-other"),
        pytest.param(connect(b"Host: a.example", b"Host: a.example"), AMBIGUOUS, 400, id="hosts"),
        pytest.param(connect(b"Host: a", target=b"a.example"), AMBIGUOUS, 400, id="no-port"),
        pytest.param(connect(b"Host: a", target=b"http://a:1/"), AMBIGUOUS, 400, id="url"),
        pytest.param(connect(b"Host: a", target=b"u@a:1"), AMBIGUOUS, 400, id="userinfo"),
        pytest.param(connect(b"Host: a.example", b"Content-Length: 5"), AMBIGUOUS, 400, id="body"),
        pytest.param(
            connect(b"Host: a.example", b"Transfer-Encoding: chunked"), AMBIGUOUS, 400, id="chunked"
        ),
        pytest.param(connect(version=b"2.0"), AMBIGUOUS, 505, id="version"),
        pytest.param(connect(b"X: " + b"y" * 4096), Fault.HEAD_TOO_LARGE, 431, id="too-large"),
        pytest.param(get(), AMBIGUOUS, 400, id="get"),
        pytest.param(b"CONNECT a\n", Fault.NOT_TLS_OR_HTTP, 400, id="not-http"),
    ],
)
def test_connect_refused(data: bytes, fault: Fault, status: int) -> None:
    with pytest.raises(HttpError) as caught:
        parse_connect(data, 4096)
    assert (caught.value.code, caught.value.status) == (fault, status)

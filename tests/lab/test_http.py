"""HTTP on port 80 through the transparent plane: every request is judged by itself."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from lab import sites
from lab.http_client import HttpClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.gateway import Gateway

pytestmark = pytest.mark.netns

ALLOWED = "www.contoso.example"
ALSO_ALLOWED = "www.fabrikam.example"
DENIED = "example.com"


@pytest.fixture
def http(either: Gateway) -> Iterator[HttpClient]:
    with either.lab.net.spoke.connect(sites.CONTOSO.addresses[0], 80) as connection:
        yield HttpClient(connection)


def _requests(gateway: Gateway, seen: int) -> list[tuple[str, str]]:
    events = gateway.lab.events.read()[seen:]
    return [(event["site"], event["host"]) for event in events if event["event"] == "request"]


def test_denied_host_after_an_allowed_one(either: Gateway, http: HttpClient) -> None:
    mark, seen = either.records.mark(), either.lab.events.mark()
    assert http.get(ALLOWED).status == 200
    refused = http.get(DENIED, "/secret")
    assert refused.status == 403
    assert "default_deny" in refused.text
    assert _requests(either, seen) == [("contoso", ALLOWED)]
    # By its source: the end of an earlier test's fold may come in between.
    record = either.record(skip=mark, name=DENIED, name_source="host")
    assert (record["action"], record["reason"]) == ("deny", "default_deny")


def test_two_allowed_hosts_each_reach_their_own_upstream(either: Gateway, http: HttpClient) -> None:
    seen = either.lab.events.mark()
    assert ALLOWED in http.get(ALLOWED).text
    second = http.get(ALSO_ALLOWED)
    assert second.status == 200
    assert ALSO_ALLOWED in second.text
    assert _requests(either, seen) == [("contoso", ALLOWED), ("elsewhere", ALSO_ALLOWED)]


def test_pipelined_requests_are_answered_in_order(either: Gateway, http: HttpClient) -> None:
    wire = b"".join(
        f"GET /{number} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        for number, host in enumerate([ALLOWED, DENIED, ALLOWED])
    )
    mark, seen = either.records.mark(), either.lab.events.mark()
    http.connection.sendall(wire)
    data = bytearray()
    while b"403" not in data:
        more = http.connection.recv(4096)
        assert more, bytes(data)
        data += more
    assert data.index(b"HTTP/1.1 200") < data.index(b"HTTP/1.1 403")
    assert either.record(skip=mark, name=DENIED)["action"] == "deny"
    assert ("contoso", DENIED) not in _requests(either, seen)


def test_keep_alive_counts_its_requests(gw: Gateway) -> None:
    mark = gw.records.mark()
    with gw.lab.net.spoke.connect(sites.CONTOSO.addresses[0], 80) as connection:
        http = HttpClient(connection)
        for _ in range(5):
            assert http.get(ALLOWED).status == 200
    record = gw.record(skip=mark, name=ALLOWED, action="allow")
    assert record["requests"] == 5


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_upload_is_unchanged(either: Gateway, http: HttpClient, chunked: bool) -> None:
    body = os.urandom(3 << 20)
    answer = http.post(ALLOWED, "/upload", body, chunked=chunked)
    assert hashlib.sha256(body).hexdigest() in answer.text


def test_refusal_arrives_while_the_client_still_sends(either: Gateway) -> None:
    """Without a drain the rest of the body would meet a closed socket and its RST eat the 403."""
    mark, seen = either.records.mark(), either.lab.events.mark()
    head = f"POST /upload HTTP/1.1\r\nHost: {DENIED}\r\nContent-Length: 900000\r\n\r\n"
    with either.lab.net.spoke.connect(sites.CONTOSO.addresses[0], 80) as connection:
        connection.sendall(head.encode())
        for _ in range(9):
            connection.sendall(os.urandom(100_000))
        answer = bytearray()
        while data := connection.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert DENIED.encode() in answer
    assert either.record(skip=mark, name=DENIED)["reason"] == "default_deny"
    assert _requests(either, seen) == []


@pytest.mark.parametrize(
    ("request_head", "reason"),
    [
        pytest.param("GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
                     "ambiguous_request", id="two-hosts"),
        pytest.param("POST / HTTP/1.1\r\nHost: www.contoso.example\r\nContent-Length: 4\r\n"
                     "Transfer-Encoding: chunked\r\n\r\n", "ambiguous_request", id="cl-and-te"),
        pytest.param("CONNECT www.contoso.example:443 HTTP/1.1\r\n"
                     "Host: www.contoso.example:443\r\n\r\n", "h2c_refused", id="connect"),
        pytest.param("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "h2c_refused", id="h2-preface"),
        pytest.param("GET / HTTP/1.1\r\nHost: 20.18.0.1\r\n\r\n", "ip_literal", id="address"),
    ],
)  # fmt: skip
def test_heads_that_are_refused(either: Gateway, request_head: str, reason: str) -> None:
    mark, seen = either.records.mark(), either.lab.events.mark()
    with either.lab.net.spoke.connect(sites.CONTOSO.addresses[0], 80) as connection:
        connection.sendall(request_head.encode())
        while connection.recv(4096):
            pass
    record = either.record(skip=mark, reason=reason)
    assert (record["action"], record["plane"]) == ("deny", "transparent")
    assert _requests(either, seen) == []


def test_websocket_becomes_a_tunnel(either: Gateway) -> None:
    """The handshake of RFC 6455 section 1.3, then frames both ways."""
    head = (
        f"GET /websocket HTTP/1.1\r\nHost: {ALLOWED}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    frame = b"\x81\x85" + bytes(4) + b"hello"  # masked with zeros
    mark = either.records.mark()
    with either.lab.net.spoke.connect(sites.CONTOSO.addresses[0], 80) as connection:
        connection.sendall(head.encode())
        answer = bytearray()
        while b"\r\n\r\n" not in answer:
            more = connection.recv(4096)
            assert more, bytes(answer)
            answer += more
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
        connection.sendall(frame)
        assert connection.recv(64) == b"\x81\x05hello"
    record = either.record(skip=mark, name=ALLOWED)
    assert (record["action"], record["name_source"]) == ("allow", "host")

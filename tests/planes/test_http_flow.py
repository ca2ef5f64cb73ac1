"""HTTP flows through the whole engine: the session's commands on real sockets."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from egressproxy.planes.context import AllowRecords, EngineOptions, ListenerKind
from egressproxy.policy.rules import Mode, Refusal, SniCheck
from egressproxy.policy.verdict import Action, Reason
from egressproxy.resolve.guard import Guard
from tests.planes.world import GATEWAY, SERVER, World, rule, ruleset

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planes.world import Peer

    Worlds = Callable[..., World]

NAME = "good.example"
OTHER = "other.example"
ALLOW, DENY, ERROR = Action.ALLOW, Action.DENY, Action.ERROR
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def http_world(worlds: Worlds) -> tuple[World, int, socket.socket]:
    """A transparent port on which ``NAME`` and ``OTHER`` are allowed, and their server."""
    world = worlds()
    port = world.intercept()
    world.obey(rule("web", NAME, OTHER, ports=(f"http:{port}",)))
    world.resolver.names[NAME] = world.resolver.names[OTHER] = (SERVER,)
    return world, port, world.serve(port)


def get(host: str, path: str = "/", more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


def ok(body: bytes, more: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def read_head(peer: Peer) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = peer.recv(1)
        assert piece, data
        data += piece
    return data


def test_a_request_and_its_answer(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    client.send(get(NAME, "/path"))
    upstream = world.upstream(server)
    assert read_head(upstream).startswith(b"GET /path HTTP/1.1\r\n")
    upstream.send(ok(b"hello"))
    assert read_head(client).startswith(b"HTTP/1.1 200 ")
    assert client.recv_exactly(5) == b"hello"
    client.close()
    world.until(lambda: world.engine.active == 0)
    (record,) = world.records
    assert (record.action, record.name, record.requests, record.protocol) == (
        ALLOW,
        NAME,
        1,
        "http",
    )
    assert record.dialled_ip == SERVER
    assert record.bytes_down > 5
    assert world.counted(ALLOW, Reason.RULE) == 1


def test_a_denied_name_gets_a_page(worlds: Worlds) -> None:
    world, port, _ = http_world(worlds)
    client = world.connect(port)
    client.send(get("bad.example"))
    answer = client.recv_all()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"default_deny" in answer
    client.close()
    assert world.outcomes() == [(DENY, Reason.DEFAULT_DENY, "refused")]


def test_the_page_arrives_while_the_client_is_still_sending_its_body(worlds: Worlds) -> None:
    world, port, _ = http_world(worlds)
    client = world.connect(port)
    head = f"POST / HTTP/1.1\r\nHost: bad.example\r\nContent-Length: {1 << 30}\r\n\r\n".encode()
    client.send(head)
    for _ in range(20):
        client.send(bytes(10_000))
    assert client.recv_all().startswith(b"HTTP/1.1 403 ")


def test_the_second_request_of_a_connection_is_judged_too(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    client.send(get(NAME) + get("bad.example"))
    upstream = world.upstream(server)
    read_head(upstream)
    upstream.send(ok(b"first"))
    answer = client.recv_all()
    assert answer.index(b"first") < answer.index(b"HTTP/1.1 403 ")
    assert b"bad.example" not in upstream.recv_all()
    assert [(r.action, r.name) for r in world.records] == [(DENY, "bad.example"), (ALLOW, NAME)]


def test_two_names_have_two_upstreams(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    for name in (NAME, OTHER):
        client.send(get(name))
        upstream = world.upstream(server)
        assert f"Host: {name}".encode().lower() in read_head(upstream).lower()
        upstream.send(ok(name.encode()))
        read_head(client)
        assert client.recv_exactly(len(name)) == name.encode()
    client.close()
    world.until(lambda: world.engine.active == 0)
    assert sorted(r.name or "" for r in world.records) == [NAME, OTHER]


def test_a_large_body_to_a_slow_reader_arrives_exactly(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    client.send(get(NAME))
    upstream = world.upstream(server)
    read_head(upstream)
    body = os.urandom(5_000_000)
    upstream.sock.setblocking(True)
    feeder = threading.Thread(target=lambda: upstream.sock.sendall(ok(body)))
    feeder.start()
    read_head(client)
    received = bytearray()
    while len(received) < len(body):
        received += client.recv(65536 if len(received) % 3 else 1000)
    feeder.join()
    assert bytes(received) == body


def test_a_large_upload_arrives_exactly(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    body = os.urandom(3_000_000)
    head = f"PUT / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    client.send(head)
    client.sock.setblocking(True)
    feeder = threading.Thread(target=lambda: client.sock.sendall(body))
    feeder.start()
    upstream = world.upstream(server)
    read_head(upstream)
    assert upstream.recv_exactly(len(body)) == body
    feeder.join()
    upstream.send(ok(b"thanks"))
    client.sock.setblocking(False)
    read_head(client)
    assert client.recv() == b"thanks"


def test_the_answer_is_delivered_to_a_slow_client_after_the_server_has_gone(
    worlds: Worlds,
) -> None:
    world, port, server = http_world(worlds)
    gateway = world.gateways[ListenerKind.TPROXY]
    gateway.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)  # its accepted sockets inherit
    client = world.connect(port)
    client.send(get(NAME, more="Connection: close\r\n"))
    upstream = world.upstream(server)
    read_head(upstream)
    body = os.urandom(1_000_000)
    upstream.sock.setblocking(True)

    def serve() -> None:
        upstream.sock.sendall(ok(body, "Connection: close\r\n"))
        upstream.sock.close()

    feeder = threading.Thread(target=serve)
    feeder.start()
    received = b""
    while len(received) < len(body):
        piece = client.recv(20_000)
        assert piece
        received += piece
        if len(received) % 5 == 0:
            world.pass_time(2)  # the farewell's second does not count while we send
    feeder.join()
    assert received.endswith(body[-1000:])


def test_an_unknown_name_is_502_and_a_dead_server_too(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    del world.resolver.names[OTHER]
    client = world.connect(port)
    client.send(get(OTHER))
    assert client.recv_all().startswith(b"HTTP/1.1 502 ")
    server.close()
    client = world.connect(port)
    client.send(get(NAME))
    assert client.recv_all().startswith(b"HTTP/1.1 502 ")
    assert world.outcomes() == [
        (ERROR, Reason.RESOLVE_FAILED, "error"),
        (ERROR, Reason.DIAL_FAILED, "error"),
    ]


def test_a_forbidden_address_is_403(worlds: Worlds) -> None:
    world, port, _ = http_world(worlds)
    world.resolver.names[NAME] = ("169.254.169.254",)
    client = world.connect(port)
    client.send(get(NAME))
    assert client.recv_all().startswith(b"HTTP/1.1 403 ")
    assert world.outcomes() == [(DENY, Reason.FORBIDDEN_ADDRESS, "refused")]


@pytest.mark.parametrize("mode", Mode)
def test_a_host_that_is_never_dialled_is_told_so(worlds: Worlds, mode: Mode) -> None:
    world = worlds()
    port = world.intercept()
    world.obey(rule("web", NAME, ports=(f"http:{port}",)), mode=mode)
    world.context.guard = Guard()
    client = world.connect(port)
    client.send(get("169.254.169.254"))
    answer = client.recv_all()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"use the host name" not in answer
    assert world.outcomes() == [(DENY, Reason.FORBIDDEN_ADDRESS, "refused")]


def test_a_slow_resolver(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    world.resolver.slow.add(NAME)
    client = world.connect(port)
    client.send(get(NAME))
    world.resolver.deliver()
    upstream = world.upstream(server)
    read_head(upstream)
    upstream.send(ok(b"late"))
    read_head(client)
    assert client.recv() == b"late"


@pytest.mark.parametrize("moment", ["resolving", "answering", "idle"])
def test_the_client_vanishes(worlds: Worlds, moment: str) -> None:
    world, port, server = http_world(worlds)
    if moment == "resolving":
        world.resolver.slow.add(NAME)
    client = world.connect(port)
    client.send(get(NAME))
    if moment != "resolving":
        upstream = world.upstream(server)
        read_head(upstream)
        upstream.send(ok(b"x" * 10)[: -5 if moment == "answering" else None])
    client.reset()
    assert world.engine.active == 0
    world.resolver.deliver()
    world.turn()
    assert [r.close_reason for r in world.records] == ["client_reset"]


def test_the_server_vanishes_in_its_answer(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    client.send(get(NAME))
    upstream = world.upstream(server)
    read_head(upstream)
    upstream.sock.send(ok(b"0123456789")[:-5])
    world.turn()
    upstream.close()
    with pytest.raises(ConnectionResetError):
        client.recv_all()


def test_a_websocket_becomes_a_tunnel(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    upgrade = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    )
    client.send(get(NAME, more=upgrade))
    upstream = world.upstream(server)
    read_head(upstream)
    upstream.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nframe one"
    )
    assert read_head(client).startswith(b"HTTP/1.1 101 ")
    assert client.recv_exactly(9) == b"frame one"
    client.send(b"frame two")
    assert upstream.recv() == b"frame two"
    assert [facts.stage for facts in world.flows()] == ["relay"]
    client.finish()
    assert upstream.recv() == b""
    upstream.close()
    assert client.recv() == b""
    (record,) = world.records
    assert (record.action, record.name, record.protocol, record.requests) == (
        ALLOW,
        NAME,
        "http",
        1,
    )
    assert record.bytes_up > len("frame two")
    assert world.counted(ALLOW, Reason.RULE) == 1


def test_a_head_that_never_ends_times_out(worlds: Worlds) -> None:
    world, port, _ = http_world(worlds)
    client = world.connect(port)
    client.send(b"GET / HTTP/1.1\r\nHost: go")
    world.pass_time(4.9)
    assert client.is_silent()
    world.pass_time(0.2)
    assert client.recv_all().startswith(b"HTTP/1.1 408 ")
    assert world.outcomes() == [(DENY, Reason.HELLO_TIMEOUT, "refused")]


def test_a_kept_alive_connection_may_be_idle_and_its_next_head_is_bounded(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    client.send(get(NAME))
    upstream = world.upstream(server)
    read_head(upstream)
    upstream.send(ok(b""))
    read_head(client)
    world.pass_time(60)
    assert client.is_silent()
    client.send(b"GET / HT")
    world.pass_time(5.1)
    assert client.recv_all().startswith(b"HTTP/1.1 408 ")


def test_idle(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    client.send(get(NAME))
    read_head(world.upstream(server))
    world.pass_time(7300)
    with pytest.raises(ConnectionResetError):
        client.recv()
    assert [r.close_reason for r in world.records] == ["idle"]


def test_bytes_that_are_no_http(worlds: Worlds) -> None:
    world, port, _ = http_world(worlds)
    client = world.connect(port)
    client.send(b"SSH-2.0-client\r\n")
    client.recv_all()
    assert [(r.action, r.reason) for r in world.records] == [(DENY, Reason.NOT_TLS_OR_HTTP)]


@pytest.mark.parametrize("refusal", [Refusal.RESET, Refusal.DROP])
def test_other_refusals(worlds: Worlds, refusal: Refusal) -> None:
    world, port, _ = http_world(worlds)
    world.obey(refusal=refusal)
    client = world.connect(port)
    client.send(get(NAME))
    if refusal is Refusal.DROP:
        assert client.is_silent()
        world.pass_time(5.1)
    with pytest.raises(ConnectionResetError):
        client.recv()


def test_a_reload_cuts_a_download_that_is_denied_now(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    client.send(get(NAME))
    upstream = world.upstream(server)
    read_head(upstream)
    upstream.send(ok(b"0123456789")[:-5])
    read_head(client)
    report = world.engine.swap(ruleset())
    world.until(lambda: report.done)
    assert report.closed == 1
    client.recv()
    with pytest.raises(ConnectionResetError):
        client.recv()
    assert (DENY, Reason.REVOKED) in [(r.action, r.reason) for r in world.records]


def test_a_reload_judges_the_next_request(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    client.send(get(NAME))
    upstream = world.upstream(server)
    read_head(upstream)
    upstream.send(ok(b""))
    read_head(client)
    report = world.engine.swap(ruleset())
    world.until(lambda: report.done)
    assert report.closed == 0
    client.send(get(NAME))
    assert client.recv_all().startswith(b"HTTP/1.1 403 ")


def test_drain_lets_an_exchange_finish_and_closes_idle_ones(worlds: Worlds) -> None:
    world, port, server = http_world(worlds)
    busy = world.connect(port)
    busy.send(get(NAME))
    upstream = world.upstream(server)
    read_head(upstream)
    idle = world.connect(port)
    idle.send(get(NAME))
    other = world.upstream(server)
    read_head(other)
    other.send(ok(b""))
    read_head(idle)
    world.engine.drain()
    world.turn()
    assert idle.recv() == b""
    upstream.send(ok(b"done"))
    read_head(busy)
    assert busy.recv_exactly(4) == b"done"
    assert busy.recv() == b""


def test_audit_lets_unknown_names_pass_and_writes_them_at_once(worlds: Worlds) -> None:
    world = worlds(None, EngineOptions(allow_records=AllowRecords.NONE))
    port = world.intercept()
    world.obey(mode=Mode.AUDIT)
    world.resolver.names[NAME] = (SERVER,)
    server = world.serve(port)
    client = world.connect(port)
    client.send(get(NAME))
    read_head(world.upstream(server))
    assert [(r.action, r.would_deny, r.close_reason) for r in world.records] == [
        (ALLOW, True, "open")
    ]


def test_what_audit_allowed_and_could_not_be_dialled_is_one_error(worlds: Worlds) -> None:
    world = worlds()
    port = world.intercept()
    world.obey(mode=Mode.AUDIT)
    client = world.connect(port)
    client.send(get(NAME))
    client.recv_all()
    assert [(r.action, r.reason) for r in world.records] == [(ERROR, Reason.RESOLVE_FAILED)]


class TestExplicit:
    def world(self, worlds: Worlds) -> tuple[World, socket.socket, int]:
        world = worlds()
        server = world.serve()
        port = server.getsockname()[1]
        world.obey(rule("web", NAME, OTHER, ports=(f"http:{port}",)))
        world.resolver.names[NAME] = world.resolver.names[OTHER] = (SERVER,)
        return world, server, port

    def test_absolute_form(self, worlds: Worlds) -> None:
        world, server, port = self.world(worlds)
        client = world.connect(world.explicit)
        target = f"{NAME}:{port}"
        client.send(f"GET http://{target}/x HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        upstream = world.upstream(server)
        assert read_head(upstream).startswith(b"GET /x HTTP/1.1\r\n")
        upstream.send(ok(b"yes"))
        read_head(client)
        assert client.recv() == b"yes"
        client.close()
        world.until(lambda: world.engine.active == 0)
        assert world.records[0].dst_port == port

    def test_absolute_form_of_a_denied_name(self, worlds: Worlds) -> None:
        world, _, port = self.world(worlds)
        client = world.connect(world.explicit)
        target = f"bad.example:{port}"
        client.send(f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        assert client.recv_all().startswith(b"HTTP/1.1 403 ")

    def test_origin_form_is_not_for_a_proxy(self, worlds: Worlds) -> None:
        world, _, _ = self.world(worlds)
        client = world.connect(world.explicit)
        client.send(get(NAME))
        assert client.recv_all().startswith(b"HTTP/1.1 400 ")

    def test_http_inside_connect_uses_the_dialled_connection(self, worlds: Worlds) -> None:
        world, server, port = self.world(worlds)
        client = world.connect(world.explicit)
        client.send(f"CONNECT {NAME}:{port} HTTP/1.1\r\nHost: {NAME}:{port}\r\n\r\n".encode())
        upstream = world.upstream(server)
        assert client.recv() == ESTABLISHED
        client.send(get(f"{NAME}:{port}"))
        read_head(upstream)
        upstream.send(ok(b"inside"))
        read_head(client)
        assert client.recv() == b"inside"

    def test_http_inside_connect_for_another_host(self, worlds: Worlds) -> None:
        world, server, port = self.world(worlds)
        client = world.connect(world.explicit)
        client.send(f"CONNECT {NAME}:{port} HTTP/1.1\r\nHost: {NAME}:{port}\r\n\r\n".encode())
        upstream = world.upstream(server)
        assert client.recv() == ESTABLISHED
        client.send(get(f"{OTHER}:{port}"))
        assert client.recv_all().startswith(b"HTTP/1.1 403 ")
        assert upstream.recv() == b""
        assert world.outcomes() == [(DENY, Reason.HOST_MISMATCH, "refused")]

    def test_http_inside_connect_for_another_host_that_the_rule_lets_pass(
        self, worlds: Worlds
    ) -> None:
        world, server, port = self.world(worlds)
        world.obey(
            rule("web", NAME, OTHER, ports=(f"http:{port}",), sni=SniCheck.ANY_ALLOWED),
        )
        client = world.connect(world.explicit)
        client.send(f"CONNECT {NAME}:{port} HTTP/1.1\r\nHost: {NAME}:{port}\r\n\r\n".encode())
        first = world.upstream(server)
        assert client.recv() == ESTABLISHED
        client.send(get(f"{OTHER}:{port}"))
        second = world.upstream(server)
        read_head(second)
        assert first.recv() == b""


def test_an_address_that_a_reload_allows_is_no_word_for_the_names_asked_there(
    worlds: Worlds,
) -> None:
    world, port, server = http_world(worlds)
    client = world.connect(port)
    client.send(get(NAME))
    upstream = world.upstream(server)
    read_head(upstream)
    upstream.send(ok(b"hello"))
    read_head(client)
    assert client.recv_exactly(5) == b"hello"
    report = world.engine.swap(ruleset(rule("net", GATEWAY, ports=(f"tcp:{port}",))))
    world.until(lambda: report.done)
    client.send(get(OTHER))
    assert read_head(client).startswith(b"HTTP/1.1 403 ")
    assert world.counted(DENY, Reason.DEFAULT_DENY) == 1

"""Flows through the whole engine on real loopback sockets, with a clock that the test moves."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from egressproxy.planes.context import AllowRecords, EngineOptions, ListenerKind
from egressproxy.policy.rules import Mode, OnReload, Refusal, SniCheck
from egressproxy.policy.verdict import Action, Reason
from egressproxy.settings import Settings
from egressproxy.wire.alert import ACCESS_DENIED
from tests.planes.conftest import (
    GATEWAY,
    SERVER,
    World,
    client_hello,
    open_descriptors,
    rule,
    ruleset,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planes.conftest import Peer

    Worlds = Callable[..., World]

NAME = "good.example"
ALLOW, DENY, ERROR = Action.ALLOW, Action.DENY, Action.ERROR
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def tls_world(worlds: Worlds, settings: Settings | None = None) -> tuple[World, int, socket.socket]:
    """A transparent port that allows ``NAME``, and its server."""
    world = worlds(settings)
    port = world.intercept()
    world.obey(rule("good", NAME, ports=(f"tls:{port}", f"http:{port}")))
    world.resolver.names[NAME] = (SERVER,)
    return world, port, world.serve(port)


def tunnel(world: World, port: int, server: socket.socket) -> tuple[Peer, Peer]:
    """A client and its upstream, relayed, the hello already taken."""
    hello = client_hello(NAME)
    client = world.connect(port)
    client.send(hello)
    upstream = world.upstream(server)
    assert upstream.recv_exactly(len(hello)) == hello
    return client, upstream


def connect_request(host: str) -> bytes:
    return f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def test_an_allowed_hello_is_replayed_exactly_and_relayed_both_ways(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    upstream.send(b"server says")
    assert client.recv() == b"server says"
    client.send(b"client says")
    assert upstream.recv() == b"client says"
    client.close()
    assert upstream.recv() == b""
    upstream.close()
    world.until(lambda: world.engine.active == 0)
    (record,) = world.records
    assert (record.action, record.reason, record.close_reason) == (
        ALLOW,
        Reason.RULE,
        "client_closed",
    )
    assert (record.name, record.rule, record.dialled_ip) == (NAME, "good", SERVER)
    assert record.bytes_up == len(client_hello(NAME)) + len(b"client says")
    assert record.bytes_down == len(b"server says")
    assert record.alpn == ("h2", "http/1.1")
    assert record.destination_match == "no"  # 127.0.0.1 is not the name's 127.0.0.2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("bad.example", Reason.DEFAULT_DENY, id="another name"),
        pytest.param("sub.good.example", Reason.DEFAULT_DENY, id="a name below"),
        pytest.param(None, Reason.NO_SNI, id="no name"),
        pytest.param("10.1.2.3", Reason.NO_SNI, id="OpenSSL sends no address as SNI"),
    ],
)
def test_a_denied_hello_gets_an_alert(worlds: Worlds, name: str | None, reason: Reason) -> None:
    world, port, _ = tls_world(worlds)
    client = world.connect(port)
    client.send(client_hello(name))
    assert client.recv_all() == ACCESS_DENIED
    assert world.outcomes() == [(DENY, reason, "refused")]
    client.close()
    world.until(lambda: world.engine.active == 0)


def test_a_hello_in_segments_of_one_byte_with_more_behind_it(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    sent = client_hello(NAME) + b"early data"
    client = world.connect(port)
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in sent:
        client.send(bytes([byte]))
    upstream = world.upstream(server)
    assert upstream.recv_exactly(len(sent)) == sent


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(
            b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", Reason.MALFORMED_HELLO, id="no hello"
        ),
        pytest.param(b"\x16\x02\x01", Reason.MALFORMED_HELLO, id="version"),
        pytest.param(
            b"\x16\x03\x01\x40\x00\x01\x7f\xff\xff" + bytes(100), Reason.HELLO_TOO_LARGE, id="size"
        ),
    ],
)
def test_bytes_that_never_become_a_hello(worlds: Worlds, data: bytes, reason: Reason) -> None:
    world, port, _ = tls_world(worlds)
    client = world.connect(port)
    client.send(data)
    assert client.recv_all() == ACCESS_DENIED
    assert world.outcomes() == [(DENY, reason, "refused")]
    assert world.records[0].protocol == "tls"


def test_half_close_passes_through_and_the_other_direction_goes_on(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    client.send(b"question")
    client.finish()
    assert upstream.recv_exactly(8) == b"question"
    assert upstream.recv() == b""
    for _ in range(3):
        upstream.send(b"answer")
        assert client.recv_exactly(6) == b"answer"
    upstream.finish()
    assert client.recv() == b""
    assert world.engine.active == 0
    assert world.outcomes() == [(ALLOW, Reason.RULE, "client_closed")]


def test_half_close_by_the_server_first(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    upstream.send(b"all I say")
    upstream.finish()
    assert client.recv_exactly(9) == b"all I say"
    assert client.recv() == b""
    client.send(b"thanks")
    assert upstream.recv_exactly(6) == b"thanks"
    client.finish()
    assert upstream.recv() == b""
    assert world.outcomes() == [(ALLOW, Reason.RULE, "upstream_closed")]


def test_a_client_that_half_closes_with_its_hello_still_gets_the_answer(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    hello = client_hello(NAME)
    client = world.connect(port)
    client.sock.send(hello)
    client.finish()
    upstream = world.upstream(server)
    assert upstream.recv_exactly(len(hello)) == hello
    assert upstream.recv() == b""
    upstream.send(b"answer")
    assert client.recv_exactly(6) == b"answer"
    upstream.close()
    assert client.recv() == b""


def test_a_reset_is_passed_on_as_a_reset_to_the_server(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    client.reset()
    with pytest.raises(ConnectionResetError):
        upstream.recv()
    assert world.outcomes() == [(ALLOW, Reason.RULE, "client_reset")]


def test_a_reset_is_passed_on_as_a_reset_to_the_client(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    upstream.reset()
    with pytest.raises(ConnectionResetError):
        client.recv()
    assert world.outcomes() == [(ALLOW, Reason.RULE, "upstream_reset")]


def test_what_came_before_a_reset_is_delivered(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    upstream.sock.send(b"last words")
    upstream.reset()
    assert client.recv_exactly(10) == b"last words"
    with pytest.raises(ConnectionResetError):
        client.recv()


def test_an_answer_survives_a_server_that_reads_no_more(worlds: Worlds) -> None:
    """A server that answers early and closes with unread bytes resets (HTTP 413): its answer is
    still the client's, although our next send to the server fails."""
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    client.sock.send(b"x" * 1000)
    world.turn()
    upstream.sock.send(b"too large")
    upstream.sock.close()  # with 1000 bytes unread: RST
    client.sock.send(b"y" * 1000)
    assert client.recv_exactly(9) == b"too large"
    with pytest.raises(ConnectionResetError):
        client.recv()


@pytest.mark.parametrize("upwards", [True, False], ids=["up", "down"])
def test_fifty_megabytes_to_a_slow_reader_arrive_exactly(worlds: Worlds, upwards: bool) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    source, sink = (client, upstream) if upwards else (upstream, client)
    data = os.urandom(1 << 20) * 50
    source.sock.setblocking(True)

    def feed() -> None:
        source.sock.sendall(data)
        source.sock.shutdown(socket.SHUT_WR)

    feeder = threading.Thread(target=feed)
    feeder.start()
    received = bytearray()
    steps = 0
    while piece := sink.recv(1 << 20 if steps % 7 else 100):
        received += piece
        steps += 1
    feeder.join()
    assert bytes(received) == data
    sink.finish()
    world.until(lambda: world.engine.active == 0)
    record = world.records[-1]
    moved = record.bytes_up - len(client_hello(NAME)) if upwards else record.bytes_down
    assert moved == len(data)


def test_a_reader_that_never_reads_stops_the_sender_and_costs_a_bounded_amount(
    worlds: Worlds,
) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    sent = 0
    for _ in range(10_000):
        try:
            sent += upstream.sock.send(b"z" * 65536)
        except BlockingIOError:
            world.turn()
            try:
                sent += upstream.sock.send(b"z" * 65536)
            except BlockingIOError:
                break
    else:
        pytest.fail("the sender is never stopped")
    client.send(b"the other way is open")
    assert upstream.recv() == b"the other way is open"
    got = 0
    upstream.sock.shutdown(socket.SHUT_WR)
    while piece := client.recv(1 << 20):
        got += len(piece)
    assert got == sent


def test_bulk_without_pipes_is_copied(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    world.engine._reactor.pipes._limit = 0
    client, upstream = tunnel(world, port, server)
    data = os.urandom(3_000_000)
    upstream.sock.setblocking(True)
    feeder = threading.Thread(target=lambda: upstream.sock.sendall(data))
    feeder.start()
    assert client.recv_exactly(len(data)) == data
    feeder.join()


def test_pipes_are_given_back(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    upstream.sock.setblocking(True)
    feeder = threading.Thread(target=lambda: upstream.sock.sendall(bytes(2_000_000)))
    feeder.start()
    client.recv_exactly(2_000_000)
    feeder.join()
    world.pass_time(20)
    assert world.engine._reactor.pipes.lent == 0


class TestTimeouts:
    def test_hello(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        client = world.connect(port)
        client.send(client_hello(NAME)[:100])
        world.pass_time(4.9)
        assert client.is_silent()
        client.send(client_hello(NAME)[100:101])
        world.pass_time(0.2)
        assert client.recv_all() == ACCESS_DENIED
        assert world.outcomes() == [(DENY, Reason.HELLO_TIMEOUT, "refused")]

    def test_nothing_said(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        client = world.connect(port)
        world.pass_time(5.1)
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.HELLO_TIMEOUT, "refused")]

    def test_idle(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        client, upstream = tunnel(world, port, server)
        world.pass_time(7000)
        client.send(b"still here")
        assert upstream.recv() == b"still here"
        world.pass_time(7000)
        assert world.engine.active == 1
        world.pass_time(300)
        for peer in (client, upstream):
            with pytest.raises(ConnectionResetError):
                peer.recv()
        assert world.outcomes() == [(ALLOW, Reason.RULE, "idle")]

    def test_half_closed(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        client, upstream = tunnel(world, port, server)
        client.finish()
        assert upstream.recv() == b""
        world.pass_time(299)
        upstream.send(b"slow answer")
        assert client.recv() == b"slow answer"
        world.pass_time(299)
        assert world.engine.active == 1
        world.pass_time(16)
        assert world.outcomes() == [(ALLOW, Reason.RULE, "half_closed")]

    def test_a_refused_client_that_goes_on_sending_is_drained_for_a_second(
        self, worlds: Worlds
    ) -> None:
        world, port, _ = tls_world(worlds)
        client = world.connect(port)
        client.send(client_hello("bad.example"))
        for _ in range(10):
            client.send(b"more")
        assert client.recv_all() == ACCESS_DENIED
        assert world.engine.active == 1
        world.pass_time(1.1)
        assert world.engine.active == 0

    def test_a_refused_client_that_floods_is_drained_of_a_megabyte(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        client = world.connect(port)
        client.send(client_hello("bad.example"))
        client.sock.setblocking(True)

        def flood() -> None:
            with contextlib.suppress(OSError):
                client.sock.sendall(bytes(8 << 20))

        flooder = threading.Thread(target=flood)
        flooder.start()
        world.until(lambda: world.engine.active == 0)
        flooder.join()


class TestClientVanishes:
    """In each state; every way out leaves nothing behind (the ``worlds`` fixture counts)."""

    def test_before_a_word(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.connect(port).close()
        assert world.engine.active == 0
        assert world.counted(DENY, Reason.CLOSED_BEFORE_HELLO) == 1

    def test_before_a_word_is_no_news(self, worlds: Worlds) -> None:
        world = worlds(None, EngineOptions(allow_records=AllowRecords.NONE))
        port = world.intercept()
        world.connect(port).close()
        world.connect(port).reset()
        assert world.records == []
        assert world.counted(DENY, Reason.CLOSED_BEFORE_HELLO) == 2

    def test_in_the_middle_of_its_hello(self, worlds: Worlds) -> None:
        world = worlds(None, EngineOptions(allow_records=AllowRecords.NONE))
        port = world.intercept()
        client = world.connect(port)
        client.send(client_hello(NAME)[:50])
        client.close()
        assert [r.reason for r in world.records] == [Reason.CLOSED_BEFORE_HELLO]

    def test_while_its_name_is_resolved(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.resolver.slow.add(NAME)
        client = world.connect(port)
        client.send(client_hello(NAME))
        assert [facts.stage for facts in world.engine.flows()] == ["resolve"]
        client.reset()
        assert world.engine.active == 0
        world.resolver.deliver()
        world.turn()
        assert world.outcomes() == [(ALLOW, Reason.RULE, "client_reset")]

    def test_while_its_server_is_dialled(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        server.close()
        _, stuck = silent_server(world, SERVER, port)
        client = world.connect(port)
        client.send(client_hello(NAME))
        assert [facts.stage for facts in world.engine.flows()] == ["dial"]
        client.reset()
        assert world.engine.active == 0
        assert stuck

    def test_while_it_is_refused(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        client = world.connect(port)
        client.send(client_hello("bad.example"))
        assert [facts.stage for facts in world.engine.flows()] == ["refuse"]
        client.reset()
        assert world.engine.active == 0

    def test_while_it_is_refused_in_silence(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.obey(refusal=Refusal.DROP)
        client = world.connect(port)
        client.send(client_hello("bad.example"))
        assert client.is_silent()
        client.reset()
        assert world.engine.active == 0


def silent_server(
    world: World, address: str, port: int
) -> tuple[socket.socket, list[socket.socket]]:
    """A listener whose queue is full: the kernel answers no further SYN."""
    server = world.serve(port, address, backlog=0)
    stuck = []
    for _ in range(4):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex((address, port))
        world.sockets.append(sock)
        stuck.append(sock)
    return server, stuck


class TestDialling:
    def test_an_unknown_name_is_an_error_and_no_deny(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.resolver.names.clear()
        client = world.connect(port)
        client.send(client_hello(NAME))
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(ERROR, Reason.RESOLVE_FAILED, "error")]
        assert world.counted(ALLOW, Reason.RULE) == 0

    def test_a_slow_answer_is_waited_for(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        world.resolver.slow.add(NAME)
        client = world.connect(port)
        client.send(client_hello(NAME))
        client.send(b"early")
        world.resolver.deliver()
        upstream = world.upstream(server)
        sent = client_hello(NAME) + b"early"
        assert len(upstream.recv_exactly(len(sent))) == len(sent)

    def test_nobody_listens(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        server.close()
        client = world.connect(port)
        client.send(client_hello(NAME))
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(ERROR, Reason.DIAL_FAILED, "error")]

    def test_the_next_address_when_one_refuses(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        world.resolver.names[NAME] = ("127.0.0.9", "127.0.0.10", SERVER)
        tunnel(world, port, server)
        assert [facts.dialled_ip for facts in world.engine.flows()] == [SERVER]

    def test_the_next_address_while_one_is_silent(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        silent_server(world, "127.0.0.9", port)
        world.resolver.names[NAME] = ("127.0.0.9", SERVER)
        client = world.connect(port)
        client.send(client_hello(NAME))
        world.pass_time(0.2)
        with pytest.raises(BlockingIOError):
            server.accept()
        world.pass_time(0.1)
        world.upstream(server)
        world.turn()
        assert [facts.dialled_ip for facts in world.engine.flows()] == [SERVER]
        world.pass_time(20)  # no timer of the race is left
        assert [facts.stage for facts in world.engine.flows()] == ["relay"]

    def test_a_race_won_by_the_last_after_failures_leaves_no_timer(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        world.resolver.names[NAME] = ("127.0.0.9", SERVER)
        tunnel(world, port, server)
        world.pass_time(20)
        assert [facts.stage for facts in world.engine.flows()] == ["relay"]

    def test_timeouts_of_an_address_and_of_all(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        silent_server(world, "127.0.0.9", port)
        silent_server(world, "127.0.0.10", port)
        world.resolver.names[NAME] = ("127.0.0.9", "127.0.0.10")
        client = world.connect(port)
        client.send(client_hello(NAME))
        world.pass_time(4.9)
        assert world.engine.active == 1
        world.pass_time(0.2)
        assert world.engine.active == 1  # the second address began later
        world.pass_time(5)
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(ERROR, Reason.DIAL_TIMEOUT, "error")]

    def test_the_total_bounds_many_silent_addresses(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds, Settings(dial_total_timeout_s=1.0))
        addresses = tuple(f"127.0.0.{n}" for n in range(10, 18))
        for address in addresses:
            silent_server(world, address, port)
        world.resolver.names[NAME] = addresses
        client = world.connect(port)
        client.send(client_hello(NAME))
        for _ in range(11):
            world.pass_time(0.1)
        assert world.outcomes() == [(ERROR, Reason.DIAL_TIMEOUT, "error")]
        client.close()

    def test_a_forbidden_address_is_a_deny(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.resolver.names[NAME] = ("169.254.169.254", "10.0.0.1")
        client = world.connect(port)
        client.send(client_hello(NAME))
        assert client.recv_all() == ACCESS_DENIED
        assert world.outcomes() == [(DENY, Reason.FORBIDDEN_ADDRESS, "refused")]
        assert world.records[0].rule == "good"


class TestNetworkPass:
    def test_an_allowed_address_is_dialled_unsniffed_before_a_byte(self, worlds: Worlds) -> None:
        world = worlds()
        port = world.intercept()
        world.obey(rule("api", "127.0.0.0/8", ports=(f"tcp:{port}",)))
        # The original destination is the gateway's own listener; dialling it would be a loop, so
        # the guard is told that the address is ours.
        from egressproxy.resolve.guard import Guard

        world.context.guard = Guard(("127.0.0.1",))
        client = world.connect(port)
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.FORBIDDEN_ADDRESS, "refused")]

    def test_a_denied_address_is_refused_before_a_byte(self, worlds: Worlds) -> None:
        world = worlds()
        port = world.intercept()
        world.obey(rule("no", "127.0.0.0/8", ports=(f"tcp:{port}",), action=DENY))
        client = world.connect(port)
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.RULE, "refused")]

    def test_our_own_address_and_port_is_a_loop(self, worlds: Worlds) -> None:
        world = worlds()
        world.context.own_addresses = frozenset((GATEWAY,))
        client = world.connect(world.intercept())
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.LOOP, "refused")]

    def test_a_redirect_port_that_is_dialled_directly_is_a_loop(self, worlds: Worlds) -> None:
        world = worlds()
        client = world.connect(world.listen(ListenerKind.REDIRECT))
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.LOOP, "refused")]


class TestRefusal:
    def test_reset(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.obey(refusal=Refusal.RESET)
        client = world.connect(port)
        client.send(client_hello("bad.example"))
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.DEFAULT_DENY, "refused")]

    def test_drop_is_silence_until_the_hello_timeout(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.obey(refusal=Refusal.DROP)
        client = world.connect(port)
        client.send(client_hello("bad.example"))
        world.pass_time(4.9)
        assert client.is_silent()
        world.pass_time(0.2)
        with pytest.raises(ConnectionResetError):
            client.recv()


class TestAudit:
    def test_a_would_be_deny_is_served_and_written_at_once(self, worlds: Worlds) -> None:
        world = worlds(None, EngineOptions(allow_records=AllowRecords.NONE))
        port = world.intercept()
        world.obey(mode=Mode.AUDIT)
        world.resolver.names["new.example"] = (SERVER,)
        server = world.serve(port)
        client = world.connect(port)
        client.send(client_hello("new.example"))
        world.upstream(server)
        world.turn()
        (record,) = world.records
        assert (record.action, record.would_deny, record.reason, record.close_reason) == (
            ALLOW,
            True,
            Reason.DEFAULT_DENY,
            "open",
        )

    def test_a_flow_without_a_name_goes_through_the_guard(self, worlds: Worlds) -> None:
        from egressproxy.resolve.guard import Guard

        world = worlds()
        port = world.intercept()
        world.obey(mode=Mode.AUDIT)
        world.context.guard = Guard()
        client = world.connect(port)
        client.send(client_hello(None))
        assert client.recv_all() == ACCESS_DENIED
        assert world.outcomes() == [(DENY, Reason.FORBIDDEN_ADDRESS, "refused")]


class TestLimits:
    def test_source(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds, Settings(max_flows_per_source=2))
        tunnel(world, port, server)
        client, _ = tunnel(world, port, server)
        third = world.connect(port)
        with pytest.raises(ConnectionResetError):
            third.recv()
        assert world.outcomes() == [(DENY, Reason.LIMIT_SOURCE, "refused")]
        other = world.connect(port, source="127.0.0.77")
        assert other.is_silent()
        client.reset()
        tunnel(world, port, server)

    def test_global(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds, Settings(max_flows=2))
        tunnel(world, port, server)
        tunnel(world, port, server)
        third = world.connect(port, source="127.0.0.77")
        with pytest.raises(ConnectionResetError):
            third.recv()
        assert world.outcomes() == [(DENY, Reason.LIMIT_GLOBAL, "refused")]

    def test_out_of_descriptors_accepting_pauses_and_comes_back(
        self, worlds: Worlds, caplog: pytest.LogCaptureFixture
    ) -> None:
        world, port, server = tls_world(worlds)
        waiting = [socket.create_connection((GATEWAY, port)) for _ in range(2)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() - 1, hard))
        try:
            for _ in range(5):
                world.engine.ready()
            assert "accepting pauses" in caplog.text
            assert len(caplog.records) == 1  # it does not spin
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        world.pass_time(0.1)
        assert world.engine.active == 2
        for sock in waiting:
            sock.close()
        tunnel(world, port, server)

    def test_out_of_descriptors_for_the_upstream(
        self, worlds: Worlds, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_socket(_family: int, _mark: int) -> socket.SocketType:
            raise OSError(errno.EMFILE, "Too many open files")

        world, port, _ = tls_world(worlds)
        monkeypatch.setattr("egressproxy.planes.dial.connecting", no_socket)
        client = world.connect(port)
        client.send(client_hello(NAME))
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(ERROR, Reason.DIAL_FAILED, "error")]


class TestReload:
    def test_denied_tunnels_are_reset_and_allowed_ones_untouched(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        keep = rule("keep", "keep.example", ports=(f"tls:{port}",))
        world.resolver.names["keep.example"] = (SERVER,)
        world.context.ruleset = ruleset(keep, rule("good", NAME, ports=(f"tls:{port}",)))
        denied, _ = tunnel(world, port, server)
        kept = world.connect(port)
        kept.send(client_hello("keep.example"))
        upstream = world.upstream(server)
        upstream.recv()
        report = world.engine.swap(ruleset(keep))
        world.until(lambda: report.done)
        assert (report.open, report.judged, report.closed, report.kept) == (2, 2, 1, 0)
        with pytest.raises(ConnectionResetError):
            denied.recv()
        upstream.send(b"on")
        assert kept.recv() == b"on"
        assert world.outcomes() == [(DENY, Reason.REVOKED, "refused")]

    def test_keep(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        client, upstream = tunnel(world, port, server)
        report = world.engine.swap(ruleset(on_reload=OnReload.KEEP))
        world.until(lambda: report.done)
        assert (report.closed, report.kept) == (0, 1)
        upstream.send(b"on")
        assert client.recv() == b"on"

    def test_a_flow_on_its_way_is_judged_again_as_it_is_joined(self, worlds: Worlds) -> None:
        world, port, _ = tls_world(worlds)
        world.resolver.slow.add(NAME)
        client = world.connect(port)
        client.send(client_hello(NAME))
        report = world.engine.swap(ruleset())
        world.until(lambda: report.done)
        world.resolver.deliver()
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.REVOKED, "refused")]

    def test_a_flow_that_is_being_sniffed_is_judged_by_one_ruleset(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        world.resolver.names["new.example"] = (SERVER,)
        client = world.connect(port)
        hello = client_hello("new.example")
        client.send(hello[:10])
        report = world.engine.swap(ruleset(rule("new", "new.example", ports=(f"tls:{port}",))))
        world.until(lambda: report.done)
        client.send(hello[10:])
        # The ruleset that asked pass 1 also answers pass 2.
        assert client.recv_all() == ACCESS_DENIED
        assert world.outcomes() == [(DENY, Reason.DEFAULT_DENY, "refused")]
        server.close()


class TestDrain:
    def test_open_flows_go_on_until_the_deadline(self, worlds: Worlds) -> None:
        world, port, server = tls_world(worlds)
        client, upstream = tunnel(world, port, server)
        world.engine.drain()
        late = socket.create_connection((GATEWAY, port))
        world.turn()
        assert world.engine.active == 1
        upstream.send(b"on")
        assert client.recv() == b"on"
        world.pass_time(29)
        assert world.engine.active == 1
        world.pass_time(2)
        for peer in (client, upstream):
            with pytest.raises(ConnectionResetError):
                peer.recv()
        assert world.outcomes() == [(ALLOW, Reason.RULE, "drained")]
        late.close()


def test_a_defect_costs_one_flow(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("egressproxy.planes.sniff.parse_client_hello", broken)
        victim = world.connect(port)
        victim.send(client_hello(NAME))
        with pytest.raises(ConnectionResetError):
            victim.recv()
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()  # the traceback keeps the engine alive
    assert world.outcomes() == [(ERROR, Reason.INTERNAL_ERROR, "error")]
    upstream.send(b"on")
    assert client.recv() == b"on"


class TestConnect:
    """The explicit plane."""

    def world(self, worlds: Worlds, **options: object) -> tuple[World, socket.socket, int]:
        world = worlds()
        server = world.serve()
        port = server.getsockname()[1]
        world.obey(rule("good", NAME, ports=(f"tls:{port}",), **options))  # type: ignore[arg-type]
        world.resolver.names[NAME] = (SERVER,)
        return world, server, port

    def test_a_tunnel_whose_sni_is_the_connect_name(self, worlds: Worlds) -> None:
        world, server, port = self.world(worlds)
        client = world.connect(world.explicit)
        client.send(connect_request(f"{NAME}:{port}"))
        upstream = world.upstream(server)
        assert client.recv() == ESTABLISHED
        hello = client_hello(NAME)
        client.send(hello)
        assert upstream.recv_exactly(len(hello)) == hello
        upstream.send(b"hi")
        assert client.recv() == b"hi"

    def test_the_hello_may_come_with_the_request(self, worlds: Worlds) -> None:
        world, server, port = self.world(worlds)
        hello = client_hello(NAME)
        client = world.connect(world.explicit)
        client.send(connect_request(f"{NAME}:{port}") + hello)
        upstream = world.upstream(server)
        assert upstream.recv_exactly(len(hello)) == hello
        assert client.recv() == ESTABLISHED

    def test_byte_by_byte(self, worlds: Worlds) -> None:
        world, server, port = self.world(worlds)
        client = world.connect(world.explicit)
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = client_hello(NAME)
        for byte in connect_request(f"{NAME}:{port}") + hello:
            client.send(bytes([byte]))
        upstream = world.upstream(server)
        assert upstream.recv_exactly(len(hello)) == hello

    def test_another_sni_is_a_mismatch(self, worlds: Worlds) -> None:
        world, server, port = self.world(worlds)
        client = world.connect(world.explicit)
        client.send(connect_request(f"{NAME}:{port}"))
        upstream = world.upstream(server)
        assert client.recv() == ESTABLISHED
        client.send(client_hello("bad.example"))
        assert client.recv_all() == ACCESS_DENIED
        assert upstream.recv() == b""
        assert world.outcomes() == [(DENY, Reason.HOST_MISMATCH, "refused")]

    def test_another_sni_is_dialled_where_the_rule_lets_it(self, worlds: Worlds) -> None:
        world, server, port = self.world(worlds)
        other = world.serve(port, "127.0.0.3")
        world.resolver.names["other.example"] = ("127.0.0.3",)
        world.obey(
            rule("any", NAME, ports=(f"tls:{port}",), sni=SniCheck.ANY_ALLOWED),
            rule("other", "other.example", ports=(f"tls:{port}",)),
        )
        client = world.connect(world.explicit)
        client.send(connect_request(f"{NAME}:{port}"))
        first = world.upstream(server)
        assert client.recv() == ESTABLISHED
        hello = client_hello("other.example")
        client.send(hello)
        second = world.upstream(other)
        assert second.recv_exactly(len(hello)) == hello
        assert first.recv() == b""

    def test_a_denied_name_is_answered_before_anything_is_resolved(self, worlds: Worlds) -> None:
        world, _, port = self.world(worlds)
        world.resolver.slow.add("bad.example")
        client = world.connect(world.explicit)
        client.send(connect_request(f"bad.example:{port}"))
        answer = client.recv_all()
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"default_deny" in answer
        assert world.resolver.waiting == []
        assert world.outcomes() == [(DENY, Reason.DEFAULT_DENY, "refused")]
        assert world.records[0].name == "bad.example"

    def test_a_name_without_address_is_502(self, worlds: Worlds) -> None:
        world, _, port = self.world(worlds)
        world.resolver.names.clear()
        client = world.connect(world.explicit)
        client.send(connect_request(f"{NAME}:{port}"))
        assert client.recv_all().startswith(b"HTTP/1.1 502 ")
        assert world.outcomes() == [(ERROR, Reason.RESOLVE_FAILED, "error")]

    def test_a_server_that_refuses_is_502(self, worlds: Worlds) -> None:
        world, server, port = self.world(worlds)
        server.close()
        client = world.connect(world.explicit)
        client.send(connect_request(f"{NAME}:{port}"))
        assert client.recv_all().startswith(b"HTTP/1.1 502 ")
        assert world.outcomes() == [(ERROR, Reason.DIAL_FAILED, "error")]

    def test_a_silent_server_is_504(self, worlds: Worlds) -> None:
        world, server, port = self.world(worlds)
        server.close()
        silent_server(world, SERVER, port)
        client = world.connect(world.explicit)
        client.send(connect_request(f"{NAME}:{port}"))
        world.pass_time(5.1)
        assert client.recv_all().startswith(b"HTTP/1.1 504 ")
        assert world.outcomes() == [(ERROR, Reason.DIAL_TIMEOUT, "error")]

    def test_a_forbidden_address_is_403(self, worlds: Worlds) -> None:
        world, _, port = self.world(worlds)
        world.resolver.names[NAME] = ("169.254.169.254",)
        client = world.connect(world.explicit)
        client.send(connect_request(f"{NAME}:{port}"))
        assert client.recv_all().startswith(b"HTTP/1.1 403 ")
        assert world.outcomes() == [(DENY, Reason.FORBIDDEN_ADDRESS, "refused")]

    def test_a_network_rule_with_the_name_makes_an_unsniffed_tunnel(self, worlds: Worlds) -> None:
        world, server, port = self.world(worlds)
        world.obey(rule("ssh", NAME, ports=(f"tcp:{port}",)))
        client = world.connect(world.explicit)
        client.send(connect_request(f"{NAME}:{port}"))
        upstream = world.upstream(server)
        upstream.send(b"SSH-2.0-server\r\n")
        assert client.recv_exactly(len(ESTABLISHED)) == ESTABLISHED
        assert client.recv() == b"SSH-2.0-server\r\n"

    def test_an_address_that_pass_one_allows(self, worlds: Worlds) -> None:
        world, server, port = self.world(worlds)
        world.obey(rule("net", "127.0.0.2/32", ports=(f"tcp:{port}",)))
        client = world.connect(world.explicit)
        client.send(connect_request(f"{SERVER}:{port}") + b"raw")
        upstream = world.upstream(server)
        assert upstream.recv() == b"raw"
        assert client.recv() == ESTABLISHED

    def test_an_address_that_nothing_allows(self, worlds: Worlds) -> None:
        world, _, port = self.world(worlds)
        client = world.connect(world.explicit)
        client.send(connect_request(f"{SERVER}:{port}"))
        assert client.recv_all().startswith(b"HTTP/1.1 403 ")
        assert world.outcomes() == [(DENY, Reason.IP_LITERAL, "refused")]
        assert world.records[0].dst_ip == SERVER

    def test_a_server_that_speaks_first_waits_until_the_client_is_judged(
        self, worlds: Worlds
    ) -> None:
        world, server, port = self.world(worlds)
        client = world.connect(world.explicit)
        client.send(connect_request(f"{NAME}:{port}"))
        upstream = world.upstream(server)
        assert client.recv() == ESTABLISHED
        upstream.send(b"banner")
        assert client.is_silent()
        hello = client_hello(NAME)
        client.send(hello)
        assert client.recv() == b"banner"
        assert upstream.recv_exactly(len(hello)) == hello

    def test_a_silent_tunnel_times_out(self, worlds: Worlds) -> None:
        world, server, port = self.world(worlds)
        client = world.connect(world.explicit)
        client.send(connect_request(f"{NAME}:{port}"))
        world.upstream(server)
        assert client.recv() == ESTABLISHED
        world.pass_time(5.1)
        with pytest.raises(ConnectionResetError):
            client.recv()
        assert world.outcomes() == [(DENY, Reason.HELLO_TIMEOUT, "refused")]

    def test_tls_on_the_proxy_port(self, worlds: Worlds) -> None:
        world, _, _ = self.world(worlds)
        client = world.connect(world.explicit)
        client.send(client_hello(NAME))
        assert client.recv_all() == ACCESS_DENIED
        assert world.outcomes() == [(DENY, Reason.NOT_TLS_OR_HTTP, "refused")]

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            pytest.param(
                b"CONNECT good.example HTTP/1.1\r\nHost: good.example\r\n\r\n", 400, id="no port"
            ),
            pytest.param(b"CONNECT a:1 HTTP/1.1\r\nHost: b:1\r\n\r\n", 400, id="another host"),
            pytest.param(b"CONNECT a:1 HTTP/1.1\nHost: a:1\n\n", 400, id="bare LF"),
        ],
    )
    def test_a_head_that_two_could_read_differently(
        self, worlds: Worlds, data: bytes, status: int
    ) -> None:
        world, _, _ = self.world(worlds)
        client = world.connect(world.explicit)
        client.send(data)
        assert client.recv_all().startswith(b"HTTP/1.1 %d " % status)
        assert world.records[0].action is DENY

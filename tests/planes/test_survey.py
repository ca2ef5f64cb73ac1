"""The open flows as an operator sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egressproxy.planes.survey import SLICE
from egressproxy.policy.rules import Mode
from tests.planes.world import (
    GATEWAY,
    NAME,
    SERVER,
    World,
    client_hello,
    connect_request,
    rule,
    tls_world,
    tunnel,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Worlds = Callable[..., World]


def test_a_tunnel(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client, upstream = tunnel(world, port, server)
    upstream.send(b"12345")
    client.recv()
    world.pass_time(3)
    (facts,) = world.flows()
    assert (facts.plane, facts.stage, facts.protocol) == ("transparent", "relay", "tls")
    assert (facts.src, facts.src_port) == client.sock.getsockname()
    assert (facts.dst, facts.dst_port) == (GATEWAY, port)
    assert (facts.name, facts.rule, facts.dialled_ip) == (NAME, "good", SERVER)
    assert (facts.reason, facts.would_deny) == ("rule", False)
    assert facts.alpn == ("h2", "http/1.1")
    assert "1.3" in facts.tls_versions
    assert (facts.bytes_up, facts.bytes_down) == (len(client_hello(NAME)), 5)
    assert (facts.since, facts.age_s, facts.idle_s) == (world.wall - 3, 3, 3)
    client.close()
    upstream.close()
    world.until(lambda: world.engine.active == 0)
    assert [record.flow_id for record in world.records] == [facts.flow_id]
    assert world.flows() == []


def test_a_flow_that_only_audit_lets_pass_says_so(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    world.obey(mode=Mode.AUDIT)
    tunnel(world, port, server)
    (facts,) = world.flows()
    assert (facts.name, facts.reason, facts.would_deny) == (NAME, "default_deny", True)


def test_before_a_word_is_said_there_is_no_name(worlds: Worlds) -> None:
    world, port, _ = tls_world(worlds)
    world.connect(port)
    (facts,) = world.flows()
    assert (facts.stage, facts.protocol, facts.name, facts.rule, facts.reason) == (
        "sniff",
        "",
        None,
        None,
        "",
    )


def test_a_connect_has_its_name_before_the_hello(worlds: Worlds) -> None:
    world = worlds()
    server = world.serve()
    port = server.getsockname()[1]
    world.obey(rule("good", NAME, ports=(f"tls:{port}",)))
    world.resolver.names[NAME] = (SERVER,)
    client = world.connect(world.explicit)
    client.send(connect_request(f"{NAME}:{port}"))
    world.upstream(server)
    client.recv()
    (facts,) = world.flows()
    assert (facts.plane, facts.name, facts.dialled_ip) == ("explicit", NAME, SERVER)


def test_an_http_connection_is_its_last_request(worlds: Worlds) -> None:
    world = worlds()
    server = world.serve()
    port = server.getsockname()[1]
    world.obey(rule("web", "a.example", "b.example", ports=(f"http:{port}",)))
    world.resolver.names.update({"a.example": (SERVER,), "b.example": (SERVER,)})
    client = world.connect(world.explicit)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    for name in ("a.example", "b.example"):
        client.send(f"GET http://{name}:{port}/ HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode())
        upstream = world.upstream(server)
        upstream.recv()
        upstream.send(answer)
        client.recv_exactly(len(answer))
    (facts,) = world.flows()
    assert (facts.stage, facts.protocol, facts.name) == ("http", "http", "b.example")
    assert (facts.rule, facts.dialled_ip) == ("web", SERVER)
    assert facts.bytes_down == 2 * len(answer)
    assert facts.bytes_up > 0


def test_a_hello_of_many_protocols_is_cut_short(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    client = world.connect(port)
    client.send(client_hello(NAME, tuple(f"{i:0>200}" for i in range(30))))
    world.upstream(server)
    (facts,) = world.flows()
    assert len(facts.alpn) == 8
    assert {len(each) for each in facts.alpn} == {32}


def test_of_many_the_oldest_and_the_busiest(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    pairs = []
    for _ in range(6):
        pairs.append(tunnel(world, port, server))
        world.pass_time(1)
    pairs[3][1].send(b"x" * 100)
    pairs[3][0].recv_exactly(100)
    pairs[5][1].send(b"x" * 200)
    pairs[5][0].recv_exactly(200)
    found = world.flows(most=2)
    sources = [client.sock.getsockname()[1] for client, _ in pairs]
    assert [facts.src_port for facts in found] == [sources[i] for i in (0, 1, 3, 5)]
    assert [facts.age_s for facts in found] == [6, 5, 3, 1]


def test_a_flow_that_ends_between_two_turns_is_left_out(worlds: Worlds) -> None:
    world, port, server = tls_world(worlds)
    kept, gone = tunnel(world, port, server), tunnel(world, port, server)
    survey = world.engine.survey(10)
    while not survey.turn():
        pass
    gone[0].reset()
    world.until(lambda: world.engine.active == 1)
    assert [facts.src_port for facts in survey.facts()] == [kept[0].sock.getsockname()[1]]


def test_a_turn_is_bounded(worlds: Worlds) -> None:
    world, port, _ = tls_world(worlds)
    clients = [world.connect(port) for _ in range(SLICE)]  # two descriptors each
    survey = world.engine.survey(1000)
    turns = 1
    while not survey.turn():
        turns += 1
    assert turns > 1
    assert len(survey.facts()) == len(clients)

"""CONNECT on the explicit plane."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from egressproxy.policy.rules import Mode, SniCheck
from egressproxy.policy.verdict import Reason
from egressproxy.wire.alert import ACCESS_DENIED
from tests.planes.world import (
    DENY,
    ERROR,
    ESTABLISHED,
    NAME,
    SERVER,
    World,
    client_hello,
    connect_request,
    rule,
    silent_server,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planes.world import World

    Worlds = Callable[..., World]


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

    @pytest.mark.parametrize("mode", Mode)
    @pytest.mark.parametrize(
        "request_line", ["CONNECT 169.254.169.254:{}", "GET http://169.254.169.254:{}/metadata"]
    )
    def test_an_address_that_is_never_dialled(
        self, worlds: Worlds, request_line: str, mode: Mode
    ) -> None:
        world, _, port = self.world(worlds)
        world.obey(rule("web", NAME, ports=(f"tls:{port}", f"http:{port}")), mode=mode)
        client = world.connect(world.explicit)
        line = request_line.format(port)
        client.send(f"{line} HTTP/1.1\r\nHost: 169.254.169.254:{port}\r\n\r\n".encode())
        assert client.recv_all().startswith(b"HTTP/1.1 403 ")
        assert world.outcomes() == [(DENY, Reason.FORBIDDEN_ADDRESS, "refused")]
        assert world.records[0].dst_ip == "169.254.169.254"

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

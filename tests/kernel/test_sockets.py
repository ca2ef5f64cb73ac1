from __future__ import annotations

import errno
import socket
import struct

import pytest

from egressproxy.errors import ServiceError
from egressproxy.kernel import sockets


def option(sock: socket.SocketType, level: int, name: int) -> int:
    return sock.getsockopt(level, name)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_a_listener_and_what_its_accepted_sockets_inherit(address: str) -> None:
    with sockets.listen(address, 0, keepalive_s=33) as listener:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
        with socket.create_connection((host, listener.getsockname()[1])):
            listener.setblocking(True)
            accepted, _ = listener.accept()
            with accepted:
                assert option(accepted, socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert option(accepted, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert option(accepted, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 33


def test_several_listeners_share_a_port() -> None:
    with sockets.listen("127.0.0.1", 0, keepalive_s=60) as one:
        port = one.getsockname()[1]
        with sockets.listen("127.0.0.1", port, keepalive_s=60) as two:
            assert two.getsockname()[1] == port
            assert not two.getblocking()


def test_the_wildcard_serves_both_families() -> None:
    with sockets.listen("::", 0, keepalive_s=60) as listener:
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])).close()


def test_defer_accept_holds_a_silent_connection_back() -> None:
    with (
        sockets.listen("127.0.0.1", 0, keepalive_s=60, defer_accept_s=5) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        with pytest.raises(BlockingIOError):
            listener.accept()
        client.send(b"x")
        accepted, _ = listener.accept()
        accepted.close()


@pytest.mark.parametrize(
    ("address", "port", "words"),
    [
        pytest.param("nowhere", 1, "not an address to listen on", id="name"),
        pytest.param("203.0.113.77", 0, "no interface has this address", id="not ours"),
    ],
)
def test_what_cannot_be_listened_on(address: str, port: int, words: str) -> None:
    with pytest.raises(ServiceError, match=words):
        sockets.listen(address, port, keepalive_s=60)


def test_a_port_that_another_has() -> None:
    with (
        socket.create_server(("127.0.0.1", 0), reuse_port=False) as other,
        pytest.raises(ServiceError, match="another process has the port"),
    ):
        sockets.listen("127.0.0.1", other.getsockname()[1], keepalive_s=60)


def test_a_connecting_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = sockets.connecting(socket.AF_INET, 0, speaks_at_once=True)
        assert sock.connect_ex(server.getsockname()) in (0, errno.EINPROGRESS)
        assert option(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.close()


def test_what_a_client_says_is_acknowledged_at_once() -> None:
    """Else one with Nagle's algorithm that writes its first words in two pieces waits 40 ms."""
    with sockets.listen("127.0.0.1", 0, keepalive_s=60) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with client, accepted:
            assert option(accepted, socket.IPPROTO_TCP, socket.TCP_QUICKACK)


@pytest.mark.parametrize("speaks_at_once", [True, False])
def test_words_that_wait_acknowledge_the_handshake(speaks_at_once: bool) -> None:
    sock = sockets.connecting(socket.AF_INET, 0, speaks_at_once=speaks_at_once)
    asked = option(sock, socket.IPPROTO_TCP, socket.TCP_QUICKACK)
    sock.close()
    assert bool(asked) is not speaks_at_once


@pytest.mark.netns
def test_the_mark() -> None:
    assert sockets.can_mark()
    sock = sockets.connecting(socket.AF_INET6, 0x4547)
    assert option(sock, socket.SOL_SOCKET, socket.SO_MARK) == 0x4547
    sock.close()


def test_keepalive_and_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            sockets.keep_alive(accepted, 60)
            assert option(accepted, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
            assert option(accepted, socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 20
            sockets.reset_on_close(accepted)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack(
                "ii", 1, 0
            )
            accepted.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)


@pytest.mark.netns
@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_listener_of_another_is_made_transparent(family: int, address: str) -> None:
    with socket.create_server((address, 0), family=family) as listener:
        sockets.adopt(listener, keepalive_s=60, transparent=True)
        assert option(listener, socket.IPPROTO_IP, socket.IP_TRANSPARENT)
        sockets.adopt(listener, keepalive_s=60, transparent=True)  # it is already


@pytest.mark.interpreted
def test_a_socket_that_cannot_be_made_transparent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: socket.socket) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(sockets, "_make_transparent", refuse)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(ServiceError, match="is not transparent: Operation not permitted") as caught,
    ):
        sockets.adopt(listener, keepalive_s=60, transparent=True)
    assert "Transparent=yes" in caught.value.hint

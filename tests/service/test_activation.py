"""Sockets of a service manager: read from the environment, shared by workers, kept over a stop."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.errors import ServiceError
from egressproxy.planes.context import ListenerKind
from egressproxy.service.activation import (
    activated_kinds,
    inherited_listeners,
    is_activated,
)
from egressproxy.service.listeners import open_listeners
from egressproxy.service.options import Endpoint, Listener
from tests.service.activated import activated
from tests.service.running import DEADLINE_S, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FIRST: Final = 900


def listener(**options: bool) -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), **options)


@pytest.fixture
def give() -> Iterator[Callable[..., dict[str, str]]]:
    """Put sockets where a manager puts them (but at ``FIRST``); gives the environment."""
    given: list[int] = []

    def put(*sockets: socket.socket, names: str) -> dict[str, str]:
        for place, sock in enumerate(sockets):
            given.append(os.dup2(sock.fileno(), FIRST + place))
            sock.close()
        return {
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": names,
        }

    yield put
    for fd in given:
        try:
            os.close(fd)
        except OSError:
            continue


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "explicit"},
        {"LISTEN_PID": str(os.getpid())},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "-1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "9" * 20},
        {"LISTEN_PID": "", "LISTEN_FDS": "1"},
    ],
    ids=["nothing", "of-another", "no-count", "none", "negative", "no-number", "huge", "no-pid"],
)
def test_not_for_us(environment: dict[str, str]) -> None:
    assert not is_activated(environment)
    assert not activated_kinds({**environment, "LISTEN_FDNAMES": "redirect"})
    assert inherited_listeners(environment, first=FIRST) == ()


def test_names_become_kinds(give: Callable[..., dict[str, str]]) -> None:
    one, two = listener(), socket.create_server(("::1", 0), family=socket.AF_INET6)
    expected = [
        (ListenerKind.REDIRECT, Endpoint("127.0.0.1", one.getsockname()[1])),
        (ListenerKind.EXPLICIT, Endpoint("::1", two.getsockname()[1])),
    ]
    environment = give(one, two, names="redirect:explicit")
    assert is_activated(environment)
    assert activated_kinds(environment) == {"redirect", "explicit"}
    found = inherited_listeners(environment, first=FIRST)
    assert [(each.kind, each.endpoint) for each in found] == expected
    for each in found:
        assert not os.get_inheritable(each.sock.fileno())
        each.sock.close()


def _stream() -> socket.socket:
    return socket.socket()


def _datagram() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _unix() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"\0egressproxy-test-{os.getpid()}")
    sock.listen()
    return sock


@pytest.mark.parametrize(
    ("make", "names", "complaint"),
    [
        (listener, "egressproxy.socket", "is called 'egressproxy.socket', not one of explicit"),
        (listener, "", "is called ''"),
        (_stream, "explicit", "is no listening TCP socket"),
        (_datagram, "explicit", "is no listening TCP socket"),
        (_unix, "redirect", "is no listening TCP socket"),
    ],
    ids=["default-name", "no-name", "not-listening", "datagram", "unix"],
)
def test_refused_and_closed(
    make: Callable[[], socket.socket],
    names: str,
    complaint: str,
    give: Callable[..., dict[str, str]],
) -> None:
    environment = give(listener(), make(), names=f"explicit:{names}")
    with pytest.raises(ServiceError, match=complaint) as caught:
        inherited_listeners(environment, first=FIRST)
    assert caught.value.hint
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(FIRST)


def test_a_descriptor_that_is_not_there(give: Callable[..., dict[str, str]]) -> None:
    environment = give(names="explicit") | {"LISTEN_FDS": "1"}
    with pytest.raises(ServiceError, match=f"descriptor {FIRST}"):
        inherited_listeners(environment, first=FIRST)


def test_one_is_shared_by_all_workers(give: Callable[..., dict[str, str]]) -> None:
    found = inherited_listeners(give(listener(), names="explicit"), first=FIRST)
    asked = Listener(ListenerKind.EXPLICIT, found[0].endpoint)
    opened = open_listeners((asked,), 3, keepalive_s=33, inherited=found)
    try:
        assert opened.listeners == (asked,)
        assert [row[0].fileno() for row in opened.sockets] == [FIRST] * 3
        sock = opened.sockets[0][0]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 33
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not sock.getblocking()
    finally:
        opened.close()


def test_as_many_as_workers_are_dealt_out(give: Callable[..., dict[str, str]]) -> None:
    one = listener(reuse_port=True)
    two = socket.create_server(one.getsockname(), reuse_port=True)
    found = inherited_listeners(give(one, two, names="explicit:explicit"), first=FIRST)
    opened = open_listeners((), 2, keepalive_s=60, inherited=found)
    try:
        assert [row[0].fileno() for row in opened.sockets] == [FIRST, FIRST + 1]
    finally:
        opened.close()


def test_a_queue_that_nobody_would_serve(give: Callable[..., dict[str, str]]) -> None:
    one = listener(reuse_port=True)
    two = socket.create_server(one.getsockname(), reuse_port=True)
    found = inherited_listeners(give(one, two, names="explicit:explicit"), first=FIRST)
    with pytest.raises(ServiceError, match="2 sockets of one address for 3 workers"):
        open_listeners((), 3, keepalive_s=60, inherited=found)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(FIRST + 1)


def test_beside_those_of_our_own(give: Callable[..., dict[str, str]]) -> None:
    found = inherited_listeners(give(listener(), names="redirect"), first=FIRST)
    asked = Listener(ListenerKind.EXPLICIT, Endpoint("127.0.0.1", 0))
    opened = open_listeners((asked,), 2, keepalive_s=60, inherited=found)
    try:
        assert [each.kind for each in opened.listeners] == ["explicit", "redirect"]
        assert len({sock.fileno() for row in opened.sockets for sock in row}) == 3
    finally:
        opened.close()


def test_of_another_kind_than_was_asked_for(give: Callable[..., dict[str, str]]) -> None:
    found = inherited_listeners(give(listener(), names="redirect"), first=FIRST)
    asked = Listener(ListenerKind.EXPLICIT, found[0].endpoint)
    with pytest.raises(ServiceError, match="to be explicit, its socket unit says redirect"):
        open_listeners((asked,), 1, keepalive_s=60, inherited=found)


def ask(connection: socket.socket) -> None:
    connection.sendall(b"CONNECT elsewhere.test:443 HTTP/1.1\r\nHost: elsewhere.test:443\r\n\r\n")


def answer(connection: socket.socket) -> bytes:
    with connection:
        connection.settimeout(DEADLINE_S)
        return connection.recv(4096).partition(b"\r\n")[0]


def test_a_connection_waits_while_the_service_is_started_again(tmp_path: Path) -> None:
    with listener() as sock, ExitStack() as stack:
        address = sock.getsockname()
        with activated(tmp_path, [sock]) as service:
            service.wait_for("ready")
            for _ in range(10):
                connection = stack.enter_context(socket.create_connection(address))
                ask(connection)
                assert answer(connection).startswith(b"HTTP/1.1 403")
            assert service.stop() == 0
        waiting = stack.enter_context(socket.create_connection(address))
        ask(waiting)
        with activated(tmp_path, [sock]) as service:
            assert answer(waiting).startswith(b"HTTP/1.1 403")
            assert service.stop() == 0


def test_a_socket_without_a_name_is_told_to_whoever_started_us(tmp_path: Path) -> None:
    with listener() as sock, activated(tmp_path, [sock], names="x.socket") as service:
        assert service.process.wait(DEADLINE_S) == 2
        poll("what is wrong", lambda: "FileDescriptorName=redirect" in "".join(service.raw))

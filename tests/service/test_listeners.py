"""Listeners of all workers: one port, no silent sharing, all or none."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from egressproxy.errors import ServiceError
from egressproxy.planes.context import ListenerKind
from egressproxy.service.listeners import open_listeners
from egressproxy.service.options import Endpoint, Listener


def explicit(address: str, port: int) -> Listener:
    return Listener(ListenerKind.EXPLICIT, Endpoint(address, port))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_every_worker_has_a_socket_of_its_own_on_the_same_port() -> None:
    opened = open_listeners(
        (explicit("127.0.0.1", 0), explicit("::1", 0)), workers=3, keepalive_s=60
    )
    try:
        assert len(opened.sockets) == 3
        for place, listener in enumerate(opened.listeners):
            assert listener.endpoint.port
            ports = {row[place].getsockname()[1] for row in opened.sockets}
            assert ports == {listener.endpoint.port}
        assert len({sock.fileno() for row in opened.sockets for sock in row}) == 6
    finally:
        opened.close()


def test_a_port_of_somebody_else_is_not_shared() -> None:
    """Also where the other one would share: a second service on the same port by mistake."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        before = open_descriptors()
        listeners = (explicit("127.0.0.1", 0), explicit("127.0.0.1", other.getsockname()[1]))
        with pytest.raises(ServiceError, match="another process does"):
            open_listeners(listeners, workers=2, keepalive_s=60)
        assert open_descriptors() == before, "all or none"


def test_an_address_of_nobody() -> None:
    with pytest.raises(ServiceError) as caught:
        open_listeners((explicit("192.0.2.1", 0),), workers=1, keepalive_s=60)
    assert "ip addr" in caught.value.hint


def test_closing_twice() -> None:
    opened = open_listeners((explicit("127.0.0.1", 0),), workers=1, keepalive_s=60)
    opened.close()
    opened.close()

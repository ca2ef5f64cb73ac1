"""A connection to a receiver that moves, hangs up, has several addresses, or wants to know us."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from egressproxy.errors import ServiceError
from egressproxy.export import syslog_connection as module
from egressproxy.export.outlet import SyslogTarget
from egressproxy.export.syslog_connection import SyslogConnection
from lab.authority import create_authority

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_S = 20.0


def receiver(address: str = "127.0.0.1") -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, 0))
    made.settimeout(PATIENCE_S)
    return made


def addresses(*places: Any) -> Any:
    """In the place of ``getaddrinfo``: these, whatever is asked for."""
    return lambda *_, **__: [
        (socket.AF_INET6 if ":" in place[0] else socket.AF_INET, socket.SOCK_DGRAM, 17, "", place)
        for place in places
    ]


def test_a_name_that_moves_is_followed_without_a_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 1.0, 61.0, 61.0])
    clock = SimpleNamespace(monotonic=lambda: next(moments))
    monkeypatch.setattr(module, "time", clock)
    with (
        receiver() as old,
        receiver() as new,
        closing(SyslogConnection(SyslogTarget("udp", "siem.example", 514))) as connection,
    ):
        monkeypatch.setattr(socket, "getaddrinfo", addresses(old.getsockname()))
        connection.send(b"1")
        monkeypatch.setattr(socket, "getaddrinfo", addresses(new.getsockname()))
        connection.send(b"2")
        connection.send(b"3")
        assert [old.recv(10), old.recv(10)] == [b"1", b"2"]
        assert new.recv(10) == b"3"


def test_an_address_without_a_route_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        receiver() as there,
        closing(SyslogConnection(SyslogTarget("udp", "siem.example", 514))) as connection,
    ):
        nowhere = ("255.255.255.255", 9)  # connect(2) to it is EACCES without SO_BROADCAST
        monkeypatch.setattr(socket, "getaddrinfo", addresses(nowhere, there.getsockname()))
        connection.send(b"1")
        assert there.recv(10) == b"1"
        connection.close()
        monkeypatch.setattr(socket, "getaddrinfo", addresses(nowhere))
        with pytest.raises(PermissionError):
            connection.send(b"2")


def test_a_receiver_that_hung_up_is_noticed_before_a_message_is_lost() -> None:
    """The first write after its FIN would succeed, and be answered with a reset."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        closing(SyslogConnection(SyslogTarget("tcp", *server.getsockname()))) as connection,
    ):
        connection.send(b"one")
        first, _ = server.accept()
        with first:
            assert first.recv(100) == b"3 one"
            first.sendall(b"hello?")  # no receiver says anything; that is no hanging up
            connection.send(b"two")
            assert first.recv(100) == b"3 two"
        connection.send(b"three")
        again, _ = server.accept()
        with again:
            assert again.recv(100) == b"5 three"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    authority = create_authority(tmp_path)
    return {
        "ca": authority.ca_file,
        "server": authority.issue(["localhost"], stem="siem"),
        "client": authority.issue(["hub-1"], stem="hub", client=True),
    }


def test_a_receiver_that_wants_to_know_us(files: dict[str, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["server"])
    context.load_verify_locations(files["ca"])
    context.verify_mode = ssl.CERT_REQUIRED
    heard: list[tuple[Any, bytes]] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                taken, _ = server.accept()
                with context.wrap_socket(taken, server_side=True) as channel:
                    heard.append((channel.getpeercert(), channel.recv(100)))

        thread = threading.Thread(target=serve)
        thread.start()
        target = SyslogTarget(
            "tls", "localhost", server.getsockname()[1], files["ca"], files["client"]
        )
        with closing(SyslogConnection(target)) as connection:
            connection.send(b"one")
            while not heard:  # its close_notify comes after that
                thread.join(0.01)
            while connection._socket is not None and not _is_readable(connection._socket):
                thread.join(0.01)
            connection.send(b"two")
            thread.join(PATIENCE_S)
    assert [message for _, message in heard] == [b"3 one", b"3 two"]
    assert ("DNS", "hub-1") in heard[0][0]["subjectAltName"]


def _is_readable(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


@pytest.mark.parametrize(
    ("ca", "cert"), [("none", ""), ("text", ""), ("", "none"), ("", "ca"), ("", "text")]
)
def test_files_that_cannot_be_used_are_told_at_once(
    files: dict[str, Path], tmp_path: Path, ca: str, cert: str
) -> None:
    files["none"] = tmp_path / "none.pem"
    files["text"] = tmp_path / "text.pem"
    files["text"].write_text("no certificate")
    target = SyslogTarget("tls", "siem.example", 6514, files.get(ca), files.get(cert))
    with pytest.raises(ServiceError, match="cannot be used") as caught:
        SyslogConnection(target)
    assert str(files[ca or cert]) in caught.value.message
    assert "PEM" in caught.value.hint

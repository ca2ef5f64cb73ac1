"""Bytes of an allowed flow: half-close, reset, long silence, bulk, and nothing changed."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest

from lab import sites
from lab.echo import RESET_COMMAND, TRAILER
from lab.programs import client
from lab.tls_client import Offer, client_hello
from lab.web import pattern

if TYPE_CHECKING:
    from pathlib import Path

    from lab.gateway import Gateway

pytestmark = pytest.mark.netns

BULK_BYTES = 32 << 20


def _opaque(gateway: Gateway, family: int = 0) -> tuple[socket.socket, bytes]:
    """A connection whose hello is judged and sent back byte for byte by the echo server."""
    lab = gateway.lab
    made = client_hello(Offer(sites.OPAQUE), lab.authority.ca_file)
    made.connection.close()
    connection = lab.net.spoke.connect(sites.OPAQUE_SITE.addresses[family], 443)
    connection.sendall(made.hello)
    return connection, made.hello


def _read(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return bytes(data)


def _read_all(connection: socket.socket) -> bytes:
    data = bytearray()
    while more := connection.recv(1 << 16):
        data += more
    return bytes(data)


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_half_close_lets_the_answer_finish(either: Gateway, family: int) -> None:
    mark = either.records.mark()
    connection, hello = _opaque(either, family)
    with connection:
        assert _read(connection, len(hello)) == hello
        connection.sendall(b"question")
        connection.shutdown(socket.SHUT_WR)
        assert _read_all(connection) == b"question" + TRAILER + b"%d\n" % (len(hello) + 8)
    record = either.record(skip=mark, name=sites.OPAQUE)
    assert record["bytes_up"] == len(hello) + 8
    assert record["bytes_down"] == record["bytes_up"] + len(TRAILER) + len(str(len(hello) + 8)) + 1


def test_reset_of_the_client_reaches_the_server(either: Gateway) -> None:
    seen = either.lab.events.mark()
    connection, hello = _opaque(either)
    assert _read(connection, len(hello)) == hello
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    event = either.lab.events.wait(lambda each: each["event"] == "echo", skip=seen)
    assert event["end"] == "reset"
    assert event["sha256"] == hashlib.sha256(hello).hexdigest()


def test_reset_of_the_server_reaches_the_client(either: Gateway) -> None:
    connection, hello = _opaque(either)
    with connection:
        assert _read(connection, len(hello)) == hello
        connection.sendall(RESET_COMMAND)
        with pytest.raises(ConnectionResetError):
            _read_all(connection)


def test_bulk_both_ways_is_unchanged(either: Gateway) -> None:
    """More than any buffer holds, with a reader that starts late: backpressure, no loss."""
    connection, hello = _opaque(either)
    payload = os.urandom(1 << 20) * (BULK_BYTES >> 20)

    def send() -> None:
        connection.sendall(payload)
        connection.shutdown(socket.SHUT_WR)

    with connection:
        sender = threading.Thread(target=send, name="sender")
        sender.start()
        echoed = _read_all(connection)
        sender.join()
    sent = hello + payload
    assert echoed == sent + TRAILER + b"%d\n" % len(sent)


def test_download_is_unchanged(either: Gateway, tmp_path: Path) -> None:
    url = f"https://www.contoso.example/bytes/{BULK_BYTES}"
    target = tmp_path / "download"
    argv = ("curl", "-sS", "--http1.1", "-o", str(target), "--max-time", "30", url)
    done = client(
        either.lab.net.spoke,
        *argv,
        environment=either.lab.trust,
        timeout_s=40,
    )
    assert done.code == 0, done.text
    assert (
        hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(pattern(BULK_BYTES)).digest()
    )


def test_silence_longer_than_every_handshake_limit(gw: Gateway) -> None:
    """A kubelet's watch says nothing for long: only the idle timeout (2 h) may end it."""
    connection, hello = _opaque(gw)
    with connection:
        assert _read(connection, len(hello)) == hello
        time.sleep(4)  # the hello may take 2 s in this lab
        connection.sendall(b"after silence")
        assert _read(connection, 13) == b"after silence"


def test_network_rules_forward_what_has_no_name(gw: Gateway) -> None:
    spoke = gw.lab.net.spoke
    with spoke.connect(sites.CONTOSO.addresses[0], 1433) as connection:
        connection.sendall(b"select 1")
        assert _read(connection, 8) == b"select 1"
    with pytest.raises(TimeoutError):
        spoke.connect(sites.CONTOSO.addresses[0], 9000, timeout_s=1).close()


@pytest.mark.parametrize("port", [pytest.param(123, id="allowed"), pytest.param(1194, id="not")])
def test_network_rules_forward_datagrams(gw: Gateway, port: int) -> None:
    with gw.lab.net.spoke.entered():
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with datagrams:
        datagrams.settimeout(1)
        datagrams.sendto(b"what time is it?", (sites.CONTOSO.addresses[0], port))
        if port == 123:
            assert datagrams.recv(64) == b"what time is it?"
        else:
            with pytest.raises(TimeoutError):
                datagrams.recv(64)

"""Every transport to a receiver that is there, away, back, or a real rsyslogd."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from egressproxy.export import syslog_connection, syslog_sender
from egressproxy.export.outlet import SyslogTarget
from egressproxy.export.syslog_sender import SyslogSender
from lab.authority import create_authority
from tests.export.records import record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE_S = 20.0
_COUNTED = re.compile(rb"([0-9]+) ")


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def names_in(messages: list[bytes]) -> list[str]:
    return [json.loads(message[message.index(b"{") :])["name"] for message in messages]


def read_counted(connection: socket.socket, number: int) -> list[bytes]:
    """So many messages of a stream, by their octet counts."""
    connection.settimeout(PATIENCE_S)
    data = b""
    found: list[bytes] = []
    while len(found) < number:
        head = _COUNTED.match(data)
        if head and len(data) >= head.end() + int(head[1]):
            found.append(data[head.end() : head.end() + int(head[1])])
            data = data[head.end() + int(head[1]) :]
            continue
        more = connection.recv(65536)
        assert more, data
        data += more
    return found


@contextmanager
def sender(target: SyslogTarget) -> Iterator[SyslogSender]:
    made = SyslogSender(target, "hub", "0.1.0")
    try:
        yield made
    finally:
        made.close()


NAMES = [f"n{number}.example" for number in range(5)]
RECORDS = [record(name=name) for name in NAMES]


def test_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(PATIENCE_S)
        with sender(SyslogTarget("udp", "localhost", receiver.getsockname()[1])) as outlet:
            outlet.take(RECORDS)
            assert names_in([receiver.recv(65536) for _ in NAMES]) == NAMES
    assert outlet.lost == 0


def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.settimeout(PATIENCE_S)
        with sender(SyslogTarget("unix", path)) as outlet:
            outlet.take(RECORDS)
            assert names_in([receiver.recv(65536) for _ in NAMES]) == NAMES


def test_tcp_goes_on_after_the_receiver_was_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as receiver:
        port = receiver.getsockname()[1]
        with sender(SyslogTarget("tcp", "127.0.0.1", port)) as outlet:
            outlet.take(RECORDS[:2])
            connection, _ = receiver.accept()
            assert names_in(read_counted(connection, 2)) == NAMES[:2]
            # It leaves with a reset, which the sender learns of at one of its next messages.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
            receiver.settimeout(0.05)
            again = None
            deadline = time.monotonic() + PATIENCE_S
            while again is None and time.monotonic() < deadline:
                outlet.take(RECORDS[2:3])
                try:
                    again, _ = receiver.accept()
                except TimeoutError:
                    continue
            assert again is not None
            with again:
                assert names_in(read_counted(again, 1)) == NAMES[2:3]


def test_tls_is_verified(tmp_path: Path) -> None:
    authority = create_authority(tmp_path)
    pem = authority.issue(["localhost"], stem="siem")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as receiver:
        port = receiver.getsockname()[1]

        def serve() -> None:
            connection, _ = receiver.accept()
            with server.wrap_socket(connection, server_side=True) as channel:
                received.extend(read_counted(channel, len(NAMES)))

        thread = threading.Thread(target=serve)
        thread.start()
        with sender(SyslogTarget("tls", "localhost", port, authority.ca_file)) as outlet:
            outlet.take(RECORDS)
            thread.join(PATIENCE_S)
    assert names_in(received) == NAMES


def test_tls_to_somebody_else_delivers_nothing(tmp_path: Path) -> None:
    authority = create_authority(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority.issue(["other.example"], stem="other"))
    refusals: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as receiver:

        def serve() -> None:
            connection, _ = receiver.accept()
            try:
                server.wrap_socket(connection, server_side=True).close()
            except OSError as error:
                refusals.append(error)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        target = SyslogTarget("tls", "localhost", receiver.getsockname()[1], authority.ca_file)
        with sender(target) as outlet:
            outlet.take(RECORDS)
            thread.join(PATIENCE_S)
            eventually(lambda: "certificate" in outlet.trouble)
    assert refusals
    assert outlet.lost == len(RECORDS)


def test_nobody_waits_for_a_receiver_that_never_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog_sender, "MAX_WAITING", 100)
    monkeypatch.setattr(syslog_sender, "CLOSE_S", 0.2)
    monkeypatch.setattr(syslog_connection, "CONNECT_S", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as receiver,
        sender(SyslogTarget("tcp", "127.0.0.1", receiver.getsockname()[1])) as outlet,
    ):
        for _ in range(200):
            outlet.take([record(note="x" * 128)] * 100)
        assert len(outlet._waiting) <= 100
        assert outlet.lost > 0


def test_nobody_there_loses_at_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(syslog_sender, "CLOSE_S", 0.05)
    with sender(SyslogTarget("unix", str(tmp_path / "none"))) as outlet:
        outlet.take(RECORDS)
    assert outlet.lost == len(RECORDS)
    assert "No such file" in outlet.trouble
    outlet.take(RECORDS)
    assert outlet.lost == 2 * len(RECORDS)


RSYSLOG = """
global(workDirectory="{folder}")
module(load="imptcp")
template(name="fields" type="list") {{
  property(name="pri") constant(value="|") property(name="hostname") constant(value="|")
  property(name="app-name") constant(value="|") property(name="msgid") constant(value="|")
  property(name="structured-data") constant(value="|") property(name="msg") constant(value="\\n")
}}
input(type="imptcp" port="{port}" address="127.0.0.1" ruleset="out")
ruleset(name="out") {{ action(type="omfile" file="{out}" template="fields") }}
"""


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    program = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin:/sbin")
    if program is None:
        pytest.skip("needs rsyslogd: apt install rsyslog")
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    out = tmp_path / "out"
    configuration = tmp_path / "rsyslog.conf"
    configuration.write_text(RSYSLOG.format(folder=tmp_path, port=port, out=out))
    argv = [program, "-n", "-f", str(configuration), "-i", str(tmp_path / "pid")]
    daemon = subprocess.Popen(argv, stderr=subprocess.PIPE)
    try:
        eventually(lambda: _listens(port) or daemon.poll() is not None)
        yield port, out
    finally:
        daemon.terminate()
        daemon.communicate(timeout=PATIENCE_S)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_rsyslog_reads_every_field(rsyslog: tuple[int, Path]) -> None:
    port, out = rsyslog
    hostile = record(name='</script>"]|%$\x1b[31m‮evil')
    with sender(SyslogTarget("tcp", "127.0.0.1", port)) as outlet:
        outlet.take([*RECORDS, hostile])
        eventually(lambda: out.exists() and out.read_text().count("\n") == len(RECORDS) + 1)
    lines = [line.split("|", 5) for line in out.read_text().splitlines()]
    assert {(line[0], line[1], line[2], line[3]) for line in lines} == {
        ("132", "hub", "egressproxy", "default_deny")
    }
    assert [line[4] for line in lines] == [
        f'[meta sequenceId="{number}"][origin software="egressproxy" swVersion="0.1.0"]'
        for number in range(1, len(lines) + 1)
    ]
    assert [json.loads(line[5])["name"] for line in lines] == [*NAMES, hostile.name]

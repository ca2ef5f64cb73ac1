"""``egressproxy up`` as a process in a gateway with one network card, and what clients reach."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.kernel.one_nic import SERVER, OneNic, one_nic, tcp, udp
from tests.service.running import DEADLINE_S, Service

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

WEB: Final = "www.contoso.example"
NTP: Final = "ntp.contoso.example"
POLICY: Final = f"""\
version: 1
cloud: AzureCloud
rules:
  - {{name: web, to: [{WEB}], ports: [http]}}
  - {{name: net, to: [20.97.0.0/24, "2001:db8:97::/64"], ports: ["tcp:7000", "udp:7000"]}}
  - {{name: ntp, to: [{NTP}], ports: ["udp:123"]}}
"""
PORTS: Final = (80, 7000, 7001)
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@dataclass(slots=True)
class Hub:
    """The network and the folder of the gateway's files."""

    net: OneNic
    folder: Path

    @property
    def policy(self) -> Path:
        """The policy."""
        return self.folder / "policy" / "policy.yaml"

    @property
    def state(self) -> Path:
        """Where the hub's own sysctls are remembered."""
        return self.folder / "state.json"

    def write_policy(self, text: str) -> None:
        """Replace the policy as an editor does."""
        draft = self.policy.with_suffix(".new")
        draft.write_text(text)
        draft.replace(self.policy)

    @contextmanager
    def up(self, *options: str, under: Sequence[str] = ()) -> Iterator[Service]:
        """``egressproxy up``, just started; ``under`` is a program that starts it."""
        admin = self.folder / "admin.sock"
        arguments = (
            *("--policy", str(self.policy), "--management", "none", "--state", str(self.state)),
            *("--admin", f"unix:{admin}", "--workers", "2", "--log", str(self.folder / "flows")),
            *("--resolve", f"{WEB}={SERVER[4]}", "--resolve", f"{NTP}={SERVER[4]}", *options),
        )
        with (self.folder / "stdout").open("ab") as stdout:
            process = subprocess.Popen(
                self.net.hub.argv(*under, sys.executable, "-m", "egressproxy", "up", *arguments),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=dict(os.environ),
            )
        service = Service(process, self.net.hub, self.policy, admin)
        service.listen_to_it()
        try:
            yield service
        finally:
            service.close()

    def down(self) -> str:
        """``egressproxy down``; what it says."""
        argv = (sys.executable, "-m", "egressproxy", "down", "--state", str(self.state))
        return self.net.hub.run(*argv)

    def get(self, host: str = WEB, version: int = 4) -> bytes:
        """The status line of ``http://host/`` at the server's address; empty where none came."""
        try:
            with self.net.client.connect(SERVER[version], 80, timeout_s=5) as connection:
                head = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode())
                return connection.recv(4096).partition(b"\r\n")[0]
        except OSError:
            return b""

    def connect(self, port: int = 7000, version: int = 4, timeout_s: float = 5.0) -> socket.socket:
        """A connection of the client's to the server, which greets it."""
        connection = self.net.client.connect(SERVER[version], port, timeout_s=timeout_s)
        assert connection.recv(100) == b"hello"
        return connection

    def reaches(self, port: int, version: int = 4) -> bool:
        """Whether a connection to that port of the server comes about; a refusal is silence."""
        try:
            self.connect(port, version, timeout_s=0.4).close()
        except TimeoutError:
            return False
        return True

    def asks_time(self) -> bool:
        """Whether a datagram to udp 123 of the server is answered."""
        with udp(self.net.client, "10.97.0.1") as client:
            client.settimeout(0.4)
            client.sendto(b"time?", (SERVER[4], 123))
            try:
                return client.recv(100) == b"time!"
            except TimeoutError:
                return False


@contextmanager
def hub(folder: Path) -> Iterator[Hub]:
    """The network, its server at work: HTTP at 80, a greeting and an echo at 7000 and 7001."""
    with one_nic(folder) as net, ExitStack() as stack:
        made = Hub(net, folder)
        made.policy.parent.mkdir()
        made.policy.write_text(POLICY)
        for address in SERVER.values():
            for port in PORTS:
                listener = stack.enter_context(tcp(net.server, address, port))
                stack.enter_context(_served(listener, is_web=port == 80))
        clock = stack.enter_context(udp(net.server, SERVER[4], 123))
        stack.enter_context(_thread(clock, _tell_time))
        yield made


@contextmanager
def _served(listener: socket.socket, *, is_web: bool) -> Iterator[None]:
    with _thread(listener, _answer if is_web else _echo):
        yield


@contextmanager
def _thread(sock: socket.socket, serve: object) -> Iterator[None]:
    stop = threading.Event()
    sock.settimeout(0.1)
    thread = threading.Thread(target=serve, args=(sock, stop))  # type: ignore[arg-type]
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(DEADLINE_S)


def _answer(listener: socket.socket, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            connection.settimeout(1)
            try:
                connection.recv(4096)
                connection.sendall(_ANSWER)
            except OSError:
                continue


def _echo(listener: socket.socket, stop: threading.Event) -> None:
    with ExitStack() as stack:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            stack.enter_context(connection)
            connection.sendall(b"hello")
            stack.enter_context(_thread(connection, _repeat))


def _repeat(connection: socket.socket, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            data = connection.recv(4096)
            connection.sendall(data)
        except TimeoutError:
            continue
        except OSError:
            return
        if not data:
            return


def _tell_time(clock: socket.socket, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            _, client = clock.recvfrom(100)
        except TimeoutError:
            continue
        clock.sendto(b"time!", client)

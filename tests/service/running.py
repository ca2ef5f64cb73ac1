"""``egressproxy run`` as a process, what it says, and an upstream that it may dial.

Loopback must never be dialled (``resolve.guard``), so the upstream lives in a namespace of its own
behind a veth pair; the service runs in the other one.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lab.namespaces import Namespace, namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

UPSTREAM: Final = "10.99.77.2"
ECHO: Final = 7000
DOWNLOAD: Final = 7001
BLOCK: Final = 32768
DEADLINE_S: Final = 20.0
_POLL_S: Final = 0.01
POLICY: Final = """\
version: 1
cloud: AzureCloud
rules:
  - {name: up, to: [up.test], ports: ["tcp:7000-7001"], addresses: [10.99.77.0/24]}
"""


def poll(what: str, is_so: Callable[[], Any], *, timeout_s: float = DEADLINE_S) -> Any:
    """The first true answer of ``is_so``; fails where none comes."""
    deadline = time.monotonic() + timeout_s
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(_POLL_S)
    return found


def records_in(log: Path) -> list[dict[str, Any]]:
    """What a log that is being written holds; of a line that is half there, nothing yet."""
    lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


@dataclass(slots=True)
class World:
    """Two namespaces: ``gate`` for the service and its clients, ``far`` for the upstream."""

    gate: Namespace
    far: Namespace
    folder: Path


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Build both namespaces, with the echo and the download server in the far one."""
    with namespaces(("gate", "far"), folder) as made:
        gate, far = made["gate"], made["far"]
        gate.run("ip", "link", "add", "out", "type", "veth", "peer", "name", "in")
        gate.run("ip", "link", "set", "in", "netns", far.name)
        gate.run("ip", "address", "add", "10.99.77.1/24", "dev", "out")
        gate.run("ip", "link", "set", "out", "up")
        far.run("ip", "address", "add", f"{UPSTREAM}/24", "dev", "in")
        far.run("ip", "link", "set", "in", "up")
        with serving(far, ECHO, echo), serving(far, DOWNLOAD, download):
            yield World(gate, far, folder)


@contextmanager
def serving(
    place: Namespace, port: int, serve: Callable[[socket.socket, threading.Event], None]
) -> Iterator[None]:
    """Run ``serve`` on a listener inside a namespace, in a thread, until the block ends."""
    stop = threading.Event()
    with place.entered():
        listener = socket.create_server((UPSTREAM, port), backlog=512)
    listener.setblocking(False)
    thread = threading.Thread(target=serve, args=(listener, stop), name=f"upstream {port}")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(DEADLINE_S)
        listener.close()
        assert not thread.is_alive()


def echo(listener: socket.socket, stop: threading.Event) -> None:
    """Send back what comes; one thread for any number of connections."""
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while not stop.is_set():
            for key, _ in selector.select(timeout=0.1):
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    selector.register(connection, selectors.EVENT_READ)
                    continue
                peer = key.fileobj
                assert isinstance(peer, socket.socket)
                try:
                    data = peer.recv(65536)
                    peer.sendall(data)
                except OSError:
                    data = b""
                if not data:
                    selector.unregister(peer)
                    peer.close()
        for key in list(selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()


def block(number: int) -> bytes:
    """The ``number``-th block of a download."""
    return b"%08d" % number * (BLOCK // 8)


def download(listener: socket.socket, stop: threading.Event) -> None:
    """Send numbered blocks until the client has ended its side; one client at a time."""
    while not stop.is_set():
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            stop.wait(0.01)
            continue
        with connection:
            connection.settimeout(DEADLINE_S)
            number = 0
            # A pace, so that the machine has time for the rest; readable is the client's end.
            while not stop.is_set() and not select.select([connection], [], [], 0.001)[0]:
                try:
                    connection.sendall(block(number))
                except OSError:
                    break
                number += 1


@dataclass(slots=True)
class Service:
    """A running service; ``events`` is its journal so far."""

    process: subprocess.Popen[bytes]
    place: Namespace
    policy: Path
    admin_socket: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)
    _reader: threading.Thread | None = None

    def listen_to_it(self) -> None:
        """Collect its journal, in a thread."""
        self._reader = threading.Thread(target=self._read, name="journal")
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            text = line.decode()
            self.raw.append(text)
            if text.startswith("{"):
                self.events.append(json.loads(text))

    def said(self, event: str, **facts: Any) -> list[dict[str, Any]]:
        """Every journal line of this event with these facts."""
        return [
            line
            for line in list(self.events)
            if line["event"] == event and all(line.get(k) == v for k, v in facts.items())
        ]

    def wait_for(self, event: str, *, times: int = 1, **facts: Any) -> dict[str, Any]:
        """The ``times``-th journal line of this event, once it is there."""

        def is_there() -> list[dict[str, Any]] | None:
            found = self.said(event, **facts)
            assert found[times - 1 :] or self.process.poll() is None, "".join(self.raw)
            return found[times - 1 :]

        try:
            return dict(poll(event, is_there)[0])
        except AssertionError as error:
            raise AssertionError(f"{error}\n{''.join(self.raw)}") from error

    @property
    def folder(self) -> Path:
        """Where its files are: ``policy/``, ``flows``, ``stdout``."""
        return self.policy.parent.parent

    @property
    def port(self) -> int:
        """The explicit listener's port."""
        (listener,) = self.wait_for("ready")["listeners"]
        found = re.fullmatch(r"explicit 127\.0\.0\.1:(\d+)", listener)
        assert found
        return int(found[1])

    def workers(self) -> list[int]:
        """The pids of the workers in service."""
        return [worker["pid"] for worker in self.ask("/readyz")[1]["workers"]]

    def is_ready(self) -> bool:
        """What ``/readyz`` says."""
        return self.ask("/readyz")[0] == http.client.OK

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, Any]:
        """One HTTP exchange with admin: status, and the JSON or text of the answer."""
        connection = _UnixConnection(self.admin_socket)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, headers=named)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(body) if is_json else body.decode()

    def reload(self) -> tuple[int, Any]:
        """``POST /reload``."""
        return self.ask("/reload", "POST", X_Egressproxy="yes")

    def connect(self) -> socket.socket:
        """A connection to the explicit listener."""
        return self.place.connect("127.0.0.1", self.port, timeout_s=DEADLINE_S)

    def tunnel(self, port: int = ECHO, name: str = "up.test") -> socket.socket:
        """An established CONNECT tunnel."""
        connection = self.connect()
        try:
            status, rest = self.try_tunnel(connection, port, name)
            assert (status, rest) == (200, b"")
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def try_tunnel(connection: socket.socket, port: int, name: str) -> tuple[int, bytes]:
        """Send CONNECT; the status and what came after the head."""
        connection.sendall(
            f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = connection.recv(4096)
            assert data, f"closed after {answer!r}"
            answer += data
        head, _, rest = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), rest

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, once it has ended and its journal is read."""
        code = self.process.wait(DEADLINE_S)
        assert self._reader
        self._reader.join(DEADLINE_S)
        return code

    def close(self) -> None:
        """End it and whatever is left of it."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.wait()
        assert self.process.stderr
        self.process.stderr.close()


@contextmanager
def running(
    world: World,
    *options: str,
    policy: str = POLICY,
    environment: dict[str, str] | None = None,
    files: dict[str, str] | None = None,
) -> Iterator[Service]:
    """The service in the gate, ready, until the block ends; ``files`` lie beside its policy."""
    with started(world, *options, policy=policy, environment=environment, files=files) as service:
        service.wait_for("ready")
        yield service


@contextmanager
def started(
    world: World,
    *options: str,
    policy: str = POLICY,
    environment: dict[str, str] | None = None,
    files: dict[str, str] | None = None,
) -> Iterator[Service]:
    """The service in the gate, just started."""
    folder = world.folder / f"run-{len(list(world.folder.glob('run-*')))}"
    folder.mkdir()
    (folder / "policy").mkdir()
    path = folder / "policy" / "policy.yaml"
    path.write_text(policy)
    for name, text in (files or {}).items():
        (path.parent / name).write_text(text)
    admin = folder / "admin.sock"
    arguments: Sequence[str] = (
        *("--policy", str(path), "--explicit", "127.0.0.1:0", "--admin", f"unix:{admin}"),
        *("--workers", "2", "--resolve", f"up.test={UPSTREAM}", "--log", str(folder / "flows")),
        *options,
    )
    with (folder / "stdout").open("wb") as stdout:
        process = subprocess.Popen(
            world.gate.argv(sys.executable, "-m", "egressproxy", "run", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
    service = Service(process, world.gate, path, admin)
    service.listen_to_it()
    try:
        yield service
    finally:
        service.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DEADLINE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(str(self._path))

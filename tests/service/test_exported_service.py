"""``egressproxy run --export`` as an unprivileged person runs it: real denies, three receivers.

Everything is on loopback; denied flows need no upstream, so there is no namespace here.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.export.collector import attributes_in, collector
from tests.service.running import DEADLINE_S, Service, poll, records_in
from tests.service.test_recorded_service import recorder_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

POLICY = """\
version: 1
cloud: AzureCloud
rules:
  - {name: up, to: [up.test], ports: [https]}
"""
TABLE = "AZFWApplicationRule.json"


@dataclass(slots=True)
class Loopback:
    """What a ``Service`` needs of a place: this machine."""

    def connect(self, address: str, port: int, *, timeout_s: float) -> socket.socket:
        return socket.create_connection((address, port), timeout_s)


@contextmanager
def started(folder: Path, *options: str) -> Iterator[Service]:
    (folder / "policy").mkdir()
    policy = folder / "policy" / "policy.yaml"
    policy.write_text(POLICY)
    admin = folder / "admin.sock"
    argv = [sys.executable, "-m", "egressproxy", "run", "--policy", str(policy)]
    argv += ["--explicit", "127.0.0.1:0", "--workers", "2", "--admin", f"unix:{admin}"]
    argv += ["--log", str(folder / "flows"), "--gateway", "hub-1", *options]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    service = Service(process, Loopback(), policy, admin)  # type: ignore[arg-type]
    service.listen_to_it()
    try:
        yield service
    finally:
        service.close()


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Service]:
    with started(folder, *options) as service:
        service.wait_for("ready")
        yield service


@dataclass(slots=True)
class Siem:
    """A syslog receiver over tcp that can be ended and started anew at its port."""

    port: int = 0
    names: list[str] = field(default_factory=list)

    @contextmanager
    def up(self) -> Iterator[None]:
        taken: list[socket.socket] = []
        with socket.create_server(("127.0.0.1", self.port)) as server:
            self.port = server.getsockname()[1]

            def serve() -> None:
                while True:
                    try:
                        connection, _ = server.accept()
                    except OSError:  # shut down below
                        return
                    taken.append(connection)
                    readers.append(threading.Thread(target=self._read, args=(connection,)))
                    readers[-1].start()

            readers: list[threading.Thread] = []
            accepting = threading.Thread(target=serve)
            accepting.start()
            try:
                yield
            finally:
                server.shutdown(socket.SHUT_RDWR)
                accepting.join(DEADLINE_S)
                for each in taken:
                    each.shutdown(socket.SHUT_RDWR)
                for reader in readers:
                    reader.join(DEADLINE_S)
                for each in taken:
                    each.close()

    def _read(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            while head := re.match(rb"[0-9]+ ", stream.peek(8)[:8]):
                stream.read(head.end())
                message = stream.read(int(head[0]))
                assert b" hub-1 egressproxy - default_deny " in message
                self.names.append(json.loads(message[message.index(b"{") :])["name"])


def deny(service: Service, name: str) -> None:
    with service.connect() as connection:
        assert service.try_tunnel(connection, 443, name)[0] == 403


def rows(folder: Path, name: str = TABLE) -> list[dict[str, Any]]:
    return records_in(folder / name)


def fqdns(folder: Path, name: str = TABLE) -> list[str]:
    return [row["Fqdn"] for row in rows(folder, name)]


def lost(service: Service) -> dict[str, float]:
    text = str(service.ask("/metrics")[1])
    found = re.findall(r'^egressproxy_export_lost_total\{outlet="(\w+)"\} (\S+)$', text, re.M)
    return {kind: float(number) for kind, number in found}


def test_denies_reach_every_receiver_also_after_one_was_away(tmp_path: Path) -> None:
    siem = Siem()
    requests: list[ExportLogsServiceRequest] = []

    def collected() -> list[str]:
        return [each["server.address"] for each in attributes_in(requests)]

    with collector(requests) as url:
        with siem.up():
            pass  # it has its port
        targets = (f"azure:{tmp_path}/azure", f"syslog:tcp://127.0.0.1:{siem.port}", f"otlp:{url}")
        with running(tmp_path, *(word for each in targets for word in ("--export", each))) as it:
            with siem.up():
                deny(it, "one.example")
                poll("all three", lambda: fqdns(tmp_path / "azure") and siem.names and collected())
            deny(it, "two.example")
            trouble = it.wait_for("an export fails, it is tried again")
            assert trouble["to"] == targets[1]
            deny(it, "three.example")
            with siem.up():
                poll("the rest", lambda: len(siem.names) == 3)
                it.wait_for("an export works again")
            poll("the others", lambda: len(collected()) == 3)
            assert lost(it) == {"azure": 0, "syslog": 0, "otlp": 0}
    names = ["one.example", "two.example", "three.example"]
    assert siem.names == collected() == fqdns(tmp_path / "azure") == names
    (first, *_) = rows(tmp_path / "azure")
    assert (first["Action"], first["ActionReason"]) == ("Deny", "Default Action")
    assert first["IsExplicitProxyRequest"] is True


def test_without_receivers_flows_are_judged_and_losses_counted_at_the_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody_reads:
        port = nobody_reads.getsockname()[1]
    with running(tmp_path, "--export", f"syslog:tcp://127.0.0.1:{port}") as service:
        deny(service, "one.example")
        service.wait_for("an export fails, it is tried again")
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
        told = service.wait_for("records are not exported")
    assert (told["to"], told["records"]) == (f"syslog:tcp://127.0.0.1:{port}", 1)


def test_sigusr1_opens_the_files_anew_and_a_store_is_kept_beside(tmp_path: Path) -> None:
    folder, store = tmp_path / "azure", tmp_path / "review.db"
    with running(tmp_path, "--export", f"azure:{folder}", "--review-store", str(store)) as service:
        deny(service, "one.example")
        poll("a row", lambda: fqdns(folder))
        for name in ("AZFWApplicationRule", "AZFWNetworkRule", "AZFWDnsQuery"):
            (folder / f"{name}.json").rename(folder / f"{name}.old")
        service.signal(signal.SIGUSR1)
        poll("all files again", lambda: (folder / "AZFWDnsQuery.json").exists())
        deny(service, "two.example")
        poll("a row in the new file", lambda: fqdns(folder))
    assert fqdns(folder, "AZFWApplicationRule.old") == ["one.example"]
    assert fqdns(folder) == ["two.example"]
    assert store.exists()


def test_a_recorder_that_died_is_replaced_and_exports_again(tmp_path: Path) -> None:
    folder = tmp_path / "azure"
    with running(tmp_path, "--export", f"azure:{folder}") as service:
        deny(service, "one.example")
        poll("a row", lambda: fqdns(folder))
        os.kill(recorder_of(service), signal.SIGKILL)
        service.wait_for("the recorder ended, flows go on")
        deny(service, "two.example")
        poll("the next row", lambda: fqdns(folder) == ["one.example", "two.example"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--export", "azure:{0}/no/where"), "AZFWApplicationRule.json cannot be opened"),
        (("--export", "syslog:tls://siem.example?ca={0}/none"), "none cannot be used"),
        (("--export", "kafka:x", "--export", "azure:"), "2 options are wrong"),
    ],
)
def test_an_export_that_cannot_be_is_told_before_anything_is_served(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    with started(tmp_path, *(option.format(tmp_path) for option in options)) as service:
        assert service.wait() == 2
    text = "".join(service.raw)
    assert said in text
    assert "hint: " in text
    assert not service.said("ready")

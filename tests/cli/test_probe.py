"""``probe`` as its users run it: a real policy, TLS and HTTP servers, a private CA, exit codes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from egressproxy.cli.probe import command
from egressproxy.cli.target import TargetError
from egressproxy.errors import PolicyError, ServiceError
from lab.authority import create_authority
from tests.probe.servers import certified
from tests.service.running import DEADLINE_S, UPSTREAM, World, serving, world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLICY = """\
version: 1
cloud: AzureCloud
rules:
  - name: tls
    to: [a.test, "*.b.test", wrong.test]
    ports: ["tls:8443"]
    addresses: [10.99.77.0/24]
  - {name: http, to: [a.test], ports: ["http:8080"], addresses: [10.99.77.0/24]}
  - {name: shut, to: [shut.test], ports: ["tls:8443"]}
"""
NAMES = ("a.test", "wrong.test", "shut.test")


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def run(policy_file: Path, *words: str) -> Any:
    return CliRunner().invoke(command, ["--policy", str(policy_file), *words])


def test_a_name_that_the_policy_does_not_open(policy_file: Path) -> None:
    error = run(policy_file, "a.test", "c.test").exception
    assert isinstance(error, TargetError)
    assert "egressproxy check c.test" in error.hint


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--dns", "x"), ServiceError),
        (("--resolve", "x"), ServiceError),
        (("--ca-file", "/nowhere"), ServiceError),
        (("--jobs", "0"), SystemExit),
        (("--deadline-s", "forever"), SystemExit),
    ],
)
def test_a_question_that_cannot_be_read(
    words: tuple[str, ...], error: type[BaseException], policy_file: Path
) -> None:
    result = run(policy_file, *words)
    assert isinstance(result.exception, error)
    assert result.exit_code != 0


def test_a_policy_that_cannot_be_read(tmp_path: Path) -> None:
    assert isinstance(run(tmp_path / "none.yaml").exception, PolicyError)


def test_a_policy_without_names(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\ncloud: AzureCloud\nrules: []\n")
    result = run(path)
    assert (result.exit_code, result.output.strip()) == (0, "names: 0")


@pytest.fixture
def far(tmp_path: Path) -> Iterator[tuple[World, Path]]:
    """An upstream with TLS for a.test on 8443 and HTTP on 8080; the CA's file."""
    authority = create_authority(tmp_path)
    context = certified(authority.issue(["a.test"], stem="a"))

    def tls(listener: socket.socket, stop: threading.Event) -> None:
        for client in _clients(listener, stop):
            with suppress(OSError), context.wrap_socket(client, server_side=True) as session:
                session.recv(1)

    def http(listener: socket.socket, stop: threading.Event) -> None:
        for client in _clients(listener, stop):
            with suppress(OSError):
                client.recv(4096)
                client.sendall(b"HTTP/1.1 301 Moved\r\n\r\n")

    with (
        world(tmp_path / "world") as built,
        serving(built.far, 8443, tls),
        serving(built.far, 8080, http),
    ):
        yield built, authority.ca_file


def _clients(listener: socket.socket, stop: threading.Event) -> Iterator[socket.socket]:
    listener.settimeout(0.1)
    while not stop.is_set():
        with suppress(TimeoutError):
            client, _ = listener.accept()
            with client:
                client.settimeout(DEADLINE_S)
                yield client


@pytest.mark.netns
def test_from_the_gateway(far: tuple[World, Path], policy_file: Path) -> None:
    built, ca_file = far
    overrides = [word for name in NAMES for word in ("--resolve", f"{name}={UPSTREAM}")]

    def probe(*words: str) -> tuple[int, Any]:
        done = subprocess.run(
            built.gate.argv(
                *(sys.executable, "-m", "egressproxy", "probe", "--policy", str(policy_file)),
                *("--dns", f"{UPSTREAM}:5", "--json", *overrides, *words),
            ),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert not done.stderr
        return done.returncode, json.loads(done.stdout)

    code, good = probe("--ca-file", str(ca_file), "a.test")
    assert code == 0
    first, second = good["names"]
    assert (first["name"], first["port"], first["step"]) == ("a.test", 8443, "done")
    assert (first["tls_version"], first["address"]) == ("TLSv1.3", UPSTREAM)
    assert first["rule"] == "rules/tls"
    assert (second["protocol"], second["http_status"]) == ("http", 301)

    code, whole = probe("--ca-file", str(ca_file))
    assert code == 1
    assert {each["name"]: (each["step"], each["level"]) for each in whole["names"][:3]} == {
        "a.test": ("done", "warn"),  # the lab's certificates live two days
        "sample.b.test": ("resolve", "warn"),
        "wrong.test": ("certificate", "fail"),
    }
    assert whole["names"][-1]["step"] == "guard"
    assert whole["names"][-1]["why"]
    assert (whole["ok"], whole["warn"], whole["fail"]) == (1, 2, 2)

    code, untrusted = probe("a.test")
    assert code == 1
    assert untrusted["names"][0]["step"] == "certificate"

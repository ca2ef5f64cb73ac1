"""Programs that run inside a namespace: servers that must come up, clients that must end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.namespaces import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from lab.namespaces import Namespace

PACKAGES: Final = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "curl": "curl",
    "openssl": "openssl",
    "gnutls-cli": "gnutls-bin",
    "go": "golang-go",
    "java": "default-jdk-headless",
    "node": "nodejs",
    "chromium": "chromium",
    "nc": "netcat-openbsd",
    "nmap": "nmap",
    "skopeo": "skopeo",
    "docker-registry": "docker-registry",
}
"""Program to the Debian package that has it."""

_START_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.02
_TAIL_CHARACTERS: Final = 2000


def missing(*programs: str) -> tuple[str, ...]:
    """Which of these programs this machine lacks."""
    return tuple(program for program in programs if shutil.which(program) is None)


def how_to_install(programs: Sequence[str]) -> str:
    """The command that brings them."""
    return "apt-get install " + " ".join(sorted({PACKAGES[program] for program in programs}))


@dataclass(frozen=True, slots=True)
class Finished:
    """How a client ended; ``code`` is negative where a signal ended it, 124 after a timeout."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """All it said."""
        return self.stdout + self.stderr


def client(
    namespace: Namespace,
    *argv: str,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 20.0,
) -> Finished:
    """Run a client inside to its end, at most ``timeout_s``.

    Its stdin stays open after the given text: gnutls-cli and nc leave at its
    end, the answer unread.
    """
    theirs, ours = os.pipe()
    try:
        os.write(ours, stdin.encode())
        return _run_client(namespace.argv(*argv), theirs, environment or {}, timeout_s)
    finally:
        os.close(theirs)
        os.close(ours)


def _run_client(
    argv: Sequence[str], stdin: int, environment: Mapping[str, str], timeout_s: float
) -> Finished:
    with subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            return Finished(124, out, err)
        return Finished(process.returncode, out, err)


@contextmanager
def server(
    namespace: Namespace,
    *argv: str,
    log: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server inside until the block ends; its output goes to ``log``.

    It ends with this process, too, however that ends (PR_SET_PDEATHSIG of prctl(2)).

    Raises:
        LabError: it ended, or was not ready in time; with the end of what it said.
    """
    with (
        log.open("ab") as output,
        subprocess.Popen(
            ("setpriv", "--pdeathsig", "TERM", *namespace.argv(*argv)),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        ) as process,
    ):
        try:
            _await_ready(process, argv[0], log, ready)
            yield process
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM, then SIGKILL to it and what it started; returns its exit code."""
    if process.stdin is not None:
        process.stdin.close()
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _await_ready(
    process: subprocess.Popen[bytes], name: str, log: Path, ready: Callable[[], bool]
) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            state = "is not ready" if process.poll() is None else f"ended ({process.returncode})"
            said = log.read_text(errors="replace")[-_TAIL_CHARACTERS:]
            raise LabError(f"{name} {state}; it said:\n{said}")
        time.sleep(_POLL_S)

"""The service of a soak in the bench network, the servers behind it, the load in front of it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.hello import client_hello
from bench.measure import spread
from bench.network import PORT, SERVER
from bench.peers.ours import NATIVE, compiled, serve
from bench.peers.peer import DENIED
from bench.soak.admin import Admin
from bench.soak.policies import FLIPPING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.network import Network
    from bench.peers.peer import Peer
    from bench.soak.watch import Plan
    from lab.namespaces import Namespace

ECHO: Final = "20.150.1.2"
BUSY: Final = "mcr.microsoft.com"
PROBE: Final = Path(__file__).with_name("probe")
ROOT: Final = Path(__file__).resolve().parents[2]
_OPENED_AT_ONCE: Final = "64"


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs."""

    built: Network
    directory: Path
    peer: Peer
    admin: Admin

    @property
    def probes(self) -> Path:
        """Where each process of the service tells of itself."""
        return self.directory / "probes"

    @contextmanager
    def idle(self, count: int, open_files: int) -> Iterator[None]:
        """Hold so many idle tunnels, from as many processes as the file limit asks for."""
        hello = str(self.directory / "allowed.hello")
        with ExitStack() as stack:
            clients = [
                stack.enter_context(
                    self._running("client", "idle", hello, str(share), _OPENED_AT_ONCE)
                )
                for share in spread(count, open_files * 3 // 4)
            ]
            for client in clients:
                await_ready(client)
            yield

    def bulk(self) -> None:
        """Some bulk and some short connections: all that is made once is there afterwards."""
        hello = str(self.directory / "allowed.hello")
        for asked in (("bulk", hello, "64", "4000000"), ("small", hello, "2000", "64")):
            with self._running("client", *asked) as client:
                client.communicate()

    @contextmanager
    def traffic(self, busy: int) -> Iterator[subprocess.Popen[bytes]]:
        """The busy tunnels and those who come and go."""
        argv = [sys.executable, "-m", "bench.soak.traffic", ECHO, str(PORT)]
        argv += [str(self.directory / "busy"), str(busy)]
        with _inside(self.built.client, argv) as process:
            await_ready(process)
            yield process

    def standing(self) -> int:
        """Idle tunnels of which the client has heard no end."""
        found = self.built.client.run("ss", "-Htn", "state", "established", "dst", SERVER)
        return len(found.splitlines())

    @contextmanager
    def servers(self, count: int) -> Iterator[None]:
        """Behind the idle tunnels, so many; behind all others, the echo."""
        echo = (sys.executable, "-m", "bench.soak.echo", ECHO, str(PORT))
        with ExitStack() as stack:
            running = [stack.enter_context(self._running("server", "serve")) for _ in range(count)]
            running.append(stack.enter_context(_inside(self.built.server, echo)))
            for process in running:
                await_ready(process)
            yield

    @contextmanager
    def _running(self, role: str, mode: str, *more: str) -> Iterator[subprocess.Popen[bytes]]:
        argv = (str(self.directory / "load"), mode, SERVER, str(PORT), *more)
        with _inside(getattr(self.built, role), argv) as process:
            yield process


@contextmanager
def stage(built: Network, directory: Path, plan: Plan) -> Iterator[Stage]:
    """Start the service, with records, review and metrics, and the servers."""
    _address(built)
    for folder in ("busy", "probes", "service"):
        (directory / folder).mkdir()
    for key, name in (("allowed", BUSY), ("denied", DENIED), ("flipping", FLIPPING)):
        (directory / "busy" / f"{key}.hello").write_bytes(client_hello(name))
    door = directory / "service" / "admin"
    more = ["--admin", f"unix:{door}", "--review-store", str(directory / "service" / "review.db")]
    more += ["--resolve", f"{BUSY}={ECHO}", "--resolve", f"{FLIPPING}={ECHO}"]
    environment = [*compiled()[:-1], f"PYTHONPATH={NATIVE}:{PROBE}"]
    environment.append(f"SOAK_PROBE={directory / 'probes'}")
    with serve(
        "soak", built, directory, environment=environment, workers=plan.workers, more=more
    ) as peer:
        staged = Stage(built, directory, peer, Admin(door))
        with peer.in_path(), staged.servers(plan.workers):
            yield staged


def _address(built: Network) -> None:
    built.server.run("ip", "address", "add", f"{ECHO}/32", "dev", "lo")
    built.hub.run("ip", "route", "add", f"{ECHO}/32", "via", "20.50.0.1")


@contextmanager
def _inside(namespace: Namespace, argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours inside, on the CPU that we have ourselves; it ends with its stdin."""
    with subprocess.Popen(
        ["nsenter", f"--net={namespace.path}", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def await_ready(process: subprocess.Popen[bytes]) -> None:
    """Read its ``ready``.

    Raises:
        RuntimeError: it said something else, or ended.
    """
    assert process.stdout is not None
    if process.stdout.readline().strip() != b"ready":
        raise RuntimeError(f"{process.args!r} is not ready")

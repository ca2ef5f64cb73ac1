"""One measurement of one data plane: load on one core, and what the hub's core had left.

CPU a transaction is what a lowest-priority spinner on the hub's core could not have, softirq
included: ``(1 - counted / counted when idle) x seconds / transactions``. The idle rate is taken
just before each measurement, because shared machines drift by tens of percent within seconds, and
once more after it: where the two differ, the machine was somebody else's meanwhile, and the
measurement is taken again.
"""

from __future__ import annotations

import json
import mmap
import resource
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from bench.network import HUB_CPU, LOAD_CPU, PORT, SERVER, Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from bench.peers.peer import Peer
    from lab.namespaces import Namespace

_CALIBRATION_S: Final = 0.4
_CALIBRATIONS: Final = 25
_DRIFT: Final = 0.07
_TRIES: Final = 4
_SETTLED_S: Final = 0.15
_LIMIT_S: Final = 120.0
_OPENED_AT_ONCE: Final = 128
_WARM_UP: Final = 300
_WARM_UPS: Final = 20


@dataclass(frozen=True, slots=True)
class Result:
    """``value`` in the unit of the measure; ``rate`` is transactions or octets a second, if any."""

    value: float
    rate: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0


class Taken(NamedTuple):
    """One try: by which part the idle rate had changed, busy seconds, what the load found."""

    drift: float
    busy_s: float
    found: dict[str, float]


class Bench:
    """The load generator, its server and the spinner, on their cores."""

    def __init__(self, network: Network, load: Path, directory: Path) -> None:
        self._network = network
        self._load = load
        self._spin = directory / "spin"
        self._hellos = directory
        self._stack = ExitStack()

    def __enter__(self) -> Bench:
        self._spin.write_bytes(bytes(8))
        argv = [str(self._load), "spin", str(self._spin)]
        self._stack.enter_context(_process(["taskset", "-c", str(HUB_CPU), *argv]))
        self._stack.enter_context(self._server())
        view = self._stack.enter_context(self._spin.open("rb"))
        self._counter = mmap.mmap(view.fileno(), 8, prot=mmap.PROT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def connections(self, count: int, *, concurrency: int = 64, hello: str = "allowed") -> Result:
        """``value`` is hub microseconds a transaction; ``rate`` transactions a second."""
        mode = "denied" if hello == "denied" else "small"
        busy_s, found = self._loaded(mode, hello, str(count), str(concurrency))
        return Result(
            busy_s / found["done"] * 1e6,
            found["done"] / found["seconds"],
            found["p50_us"],
            found["p99_us"],
        )

    def warm_up(self) -> None:
        """Connections until all of them pass: workers that join a port one by one break some.

        Raises:
            RuntimeError: still not.
        """
        for _ in range(_WARM_UPS):
            if not self._run("small", "allowed", str(_WARM_UP), str(_OPENED_AT_ONCE)).returncode:
                return
        raise RuntimeError("not all connections of the warm-up passed")

    def bulk(self, connections: int, octets: int) -> Result:
        """``value`` is hub microseconds a megabyte; ``rate`` octets a second."""
        busy_s, found = self._loaded("bulk", "allowed", str(connections), str(octets))
        return Result(busy_s / found["bytes"] * 1e12, found["bytes"] / found["seconds"])

    def idle_tunnels(self, peer: Peer, count: int) -> Result:
        """``value`` is private octets an idle tunnel of the data plane's processes."""
        shares = spread(count, _tunnels_of_a_process())
        with ExitStack() as stack:
            for _ in shares[1:]:
                stack.enter_context(self._server())
            before = peer.private_bytes()
            clients = [stack.enter_context(_process(self._idle_argv(share))) for share in shares]
            for client in clients:
                _await_ready(client)
            held = peer.private_bytes()
        return Result((held - before) / count)

    def _server(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        return _ready(self._argv(self._network.server, "serve"))

    def _idle_argv(self, count: int) -> list[str]:
        hello = self._hello("allowed")
        return self._argv(self._network.client, "idle", hello, str(count), str(_OPENED_AT_ONCE))

    def _hello(self, name: str) -> str:
        return str(self._hellos / f"{name}.hello")

    def _loaded(self, mode: str, hello: str, *more: str) -> tuple[float, dict[str, float]]:
        """Busy seconds of the hub's core, and what the load found.

        Raises:
            RuntimeError: the load failed.
        """
        taken = steadiest(lambda: self._loaded_once(mode, hello, *more))
        return taken.busy_s, taken.found

    def _loaded_once(self, mode: str, hello: str, *more: str) -> Taken:
        idle_rate = self._idle_rate()
        start, started = self._count(), time.monotonic()
        done = self._run(mode, hello, *more)
        seconds, counted = time.monotonic() - started, self._count() - start
        if done.returncode:
            raise RuntimeError(f"load {mode}: {done.stdout}{done.stderr}")
        time.sleep(_SETTLED_S)  # what is left of the load is written and closed
        drift = abs(self._idle_rate() / idle_rate - 1)
        busy_s = seconds * (1 - counted / seconds / idle_rate)
        return Taken(drift, busy_s, json.loads(done.stdout))

    def _run(self, mode: str, hello: str, *more: str) -> subprocess.CompletedProcess[str]:
        argv = self._argv(self._network.client, mode, self._hello(hello), *more)
        return subprocess.run(argv, capture_output=True, text=True, timeout=_LIMIT_S)

    def _idle_rate(self) -> float:
        """What the spinner counts a second on an idle core; of one that is still starting, waits.

        Raises:
            RuntimeError: the core does not get idle.
        """
        for _ in range(_CALIBRATIONS):
            start, started = self._count(), time.monotonic()
            time.sleep(_CALIBRATION_S)  # the measurement itself
            if counted := self._count() - start:
                return counted / (time.monotonic() - started)
        raise RuntimeError(f"CPU {HUB_CPU} is busy with something else: measure when it is not")

    def _count(self) -> int:
        return int.from_bytes(self._counter[:8], "little")

    def _argv(self, namespace: Namespace, mode: str, *more: str) -> list[str]:
        inside = [
            "nsenter",
            f"--net={namespace.path}",
            "taskset",
            "-c",
            str(LOAD_CPU),
            str(self._load),
        ]
        return [*inside, mode, SERVER, str(PORT), *more]


def steadiest(take: Callable[[], Taken]) -> Taken:
    """The first try during which the machine hardly drifted, else the best of a few."""
    tries: list[Taken] = []
    while len(tries) < _TRIES:
        tries.append(take())
        if tries[-1].drift <= _DRIFT:
            break
    return min(tries, key=lambda each: each.drift)


def spread(count: int, most: int) -> list[int]:
    """Share ``count`` among as few processes as can have at most ``most`` each, evenly."""
    processes = -(-count // most)
    return [(count + n) // processes for n in range(processes)]


def _tunnels_of_a_process() -> int:
    """What the file limit lets client and server hold, though not all servers get equally many."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] * 3 // 4


@contextmanager
def _ready(argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with _process(argv) as process:
        _await_ready(process)
        yield process


def _await_ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    if process.stdout.readline().strip() != b"ready":
        raise RuntimeError(f"{process.args!r}: ended ({process.wait()})")


@contextmanager
def _process(argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()

"""New connections a second over several cores: a worker each, the load on cores of its own."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.cores import STAT, busy, read_ticks, steer
from bench.network import PORT, SERVER
from bench.peers.ours import compiled, serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.network import Network

CONCURRENCY: Final = 64
"""Connections at a time from each core of the load."""
WARM_UP: Final = 300


@dataclass(frozen=True, slots=True)
class Rate:
    """Connections a second over several cores, and how busy the hub's and the load's were (0-1)."""

    rate: float
    hub_busy: float
    load_busy: float


@dataclass(frozen=True, slots=True)
class Cores:
    """Which CPUs the hub and its proxy have, and which the client and the server."""

    hub: tuple[int, ...]
    load: tuple[int, ...]


def over_cores(
    built: Network, load: Path, cores: Cores, *, repeats: int, connections: int
) -> dict[int, list[Rate]]:
    """Rates of 1, 2, 4, … workers with a core each, one a repeat.

    Args:
        built: the network; its packet work is steered to the cores in use.
        load: the load generator.
        cores: how many of the hub's are used at most, and all of the load's.
        repeats: how often each number of cores is measured, in alternating order.
        connections: in one measurement, for each of the hub's cores.
    """
    found: dict[int, list[Rate]] = defaultdict(list)
    counts = powers(len(cores.hub))
    with _servers(built, load, cores.load):
        for repeat in range(repeats):
            for count in counts if repeat % 2 == 0 else reversed(counts):
                used = Cores(cores.hub[:count], cores.load)
                found[count].append(_rate(built, load, used, connections * count))
                print(f"{count} cores: {found[count][-1].rate:,.0f}/s", flush=True)
    return dict(found)


def powers(most: int) -> tuple[int, ...]:
    """1, 2, 4, … and ``most``."""
    return tuple(sorted({most, *(1 << bit for bit in range(most.bit_length()))}))


def _rate(built: Network, load: Path, cores: Cores, connections: int) -> Rate:
    steer(built, cores.hub, cores.load)
    pinned = ("taskset", "-c", ",".join(map(str, cores.hub)), *compiled())
    service = serve("workers", built, load.parent, environment=pinned, workers=len(cores.hub))
    with service as peer, peer.in_path():
        _transact(built, load, cores.load, WARM_UP)
        before = read_ticks(STAT.read_text())
        rate = _transact(built, load, cores.load, connections)
        after = read_ticks(STAT.read_text())
    return Rate(rate, busy(before, after, cores.hub), busy(before, after, cores.load))


def _transact(built: Network, load: Path, cores: Sequence[int], connections: int) -> float:
    """All load cores at once; connections a second of all, by the slowest."""
    hello = str(load.with_name("allowed.hello"))
    asked = (hello, str(connections // len(cores)), str(CONCURRENCY))
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                subprocess.Popen(
                    _pinned(built.client.path, core, load, "small", *asked),
                    stdout=subprocess.PIPE,
                )
            )
            for core in cores
        ]
        found = [json.loads(client.communicate()[0]) for client in clients]
    done: float = sum(each["done"] for each in found)
    seconds: float = max(each["seconds"] for each in found)
    return done / seconds


@contextmanager
def _servers(built: Network, load: Path, cores: Sequence[int]) -> Iterator[None]:
    """One a load core; they share the port."""
    with ExitStack() as stack:
        for core in cores:
            server = subprocess.Popen(
                _pinned(built.server.path, core, load, "serve"), stdout=subprocess.PIPE
            )
            stack.enter_context(server)
            stack.callback(server.terminate)
            assert server.stdout is not None
            server.stdout.readline()
        yield


def _pinned(namespace: Path, core: int, load: Path, mode: str, *more: str) -> list[str]:
    inside = ["nsenter", f"--net={namespace}", "taskset", "-c", str(core), str(load)]
    return [*inside, mode, SERVER, str(PORT), *more]

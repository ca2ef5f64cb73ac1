"""The macro benchmark: every data plane in turn, repeat after repeat, so that drift cancels."""

from __future__ import annotations

import resource
import subprocess
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.hello import client_hello
from bench.measure import Bench, Result
from bench.network import network
from bench.peers.peer import ALLOWED, DENIED
from bench.peers.table import PEERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.peers.peer import Peer

SOURCE: Final = Path(__file__).with_name("load.c")


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of the table: what is measured, and which data planes it makes sense for."""

    title: str
    unit: str
    take: Callable[[Bench, Peer, Scale], Result]
    needs_processes: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """How much load one measurement is."""

    connections: int = 8000
    bulk_octets: int = 1_000_000_000
    idle_tunnels: int = 2000
    repeats: int = 9


QUICK: Final = Scale(connections=1500, bulk_octets=80_000_000, idle_tunnels=300, repeats=3)

MEASURES: Final = (
    Measure("new TLS connection", "hub us", lambda bench, _, n: bench.connections(n.connections)),
    Measure(
        "denied connection",
        "hub us",
        lambda bench, _, n: bench.connections(n.connections, hello="denied"),
    ),
    Measure("bulk, 1 connection", "hub us/MB", lambda bench, _, n: bench.bulk(1, n.bulk_octets)),
    Measure(
        "bulk, 8 connections", "hub us/MB", lambda bench, _, n: bench.bulk(8, n.bulk_octets // 4)
    ),
    Measure(
        "one at a time",
        "hub us",
        lambda bench, _, n: bench.connections(n.connections // 4, concurrency=1),
    ),
    Measure(
        "idle tunnel",
        "octets",
        lambda bench, peer, n: bench.idle_tunnels(peer, n.idle_tunnels),
        needs_processes=True,
    ),
)

Results = dict[str, dict[str, list[Result]]]
"""Measure title to data plane to its results, one a repeat."""


def run(scale: Scale, wanted: tuple[str, ...], say: Callable[[str], None]) -> Results:
    """Measure the wanted data planes; root and the Debian packages of ``make bench`` are needed."""
    results: Results = defaultdict(lambda: defaultdict(list))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        load = directory / "load"
        subprocess.run(["cc", "-O2", "-o", str(load), str(SOURCE)], check=True)
        (directory / "allowed.hello").write_bytes(client_hello(ALLOWED))
        (directory / "denied.hello").write_bytes(client_hello(DENIED))
        with network(directory) as built, Bench(built, load, directory) as bench:
            for repeat in range(scale.repeats):
                for key in wanted if repeat % 2 == 0 else reversed(wanted):
                    with PEERS[key](built, directory) as peer:
                        _take_all(bench, peer, scale, results)
                    say(f"repeat {repeat + 1}/{scale.repeats}: {peer.name}")
    return results


def _take_all(bench: Bench, peer: Peer, scale: Scale, results: Results) -> None:
    bench.connections(200)  # warm-up: code paths, caches, pools
    for measure in MEASURES:
        if measure.title == "denied connection" and not peer.roots:
            continue  # the kernel alone denies nothing
        if measure.needs_processes and not peer.pids:
            continue
        results[measure.title][peer.name].append(measure.take(bench, peer, scale))

"""The macro benchmark: all data planes run side by side and enter the path in turn.

One measurement of each follows that of the others within seconds, in alternating order, so that a
pair meets the same machine. Those that wait are idle; what that costs, the idle rate before each
measurement has in it.
"""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.generator import build_load, raise_open_files
from bench.hello import post_quantum_hello
from bench.measure import Bench
from bench.measures import MEMORY, TRAFFIC
from bench.network import network
from bench.peers.forwarding import forwarding
from bench.peers.peer import ALLOWED, DENIED, LISTEN
from bench.peers.table import PEERS, PRINCIPAL, SLOW
from lab.namespaces import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from bench.measure import Result
    from bench.measures import Measure, Memory, Scale
    from bench.network import Network
    from bench.peers.peer import Peer

_PORTS_EACH: Final = 100
_DESCRIPTORS_A_TUNNEL: Final = 2
_SLOW_REPEATS: Final = 3

Results = dict[str, dict[str, list["Result"]]]
"""Measure title to data plane to its results, one a repeat, the first repeats first."""


@dataclass(frozen=True, slots=True)
class Findings:
    """``results``, and what the reader of the table must know of them."""

    results: Results = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, title: str, name: str, result: Result) -> None:
        """One more result of a measure and a data plane."""
        self.results.setdefault(title, {}).setdefault(name, []).append(result)


def run(scale: Scale, wanted: Sequence[str], say: Callable[[str], None]) -> Findings:
    """Measure the wanted data planes; root and the Debian packages of ``make bench`` are needed."""
    limit = raise_open_files()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # Squid drops its privileges and then reads
        load = build_load(directory, {"allowed": ALLOWED, "denied": DENIED})
        (directory / "post-quantum.hello").write_bytes(post_quantum_hello(ALLOWED))
        with network(directory) as built, Bench(built, load, directory) as bench:
            course = _Course(built, directory, bench, scale, say)
            course.traffic(wanted)
            for measure in MEMORY:
                course.memory(measure, wanted, limit)
    return course.findings


@dataclass(frozen=True, slots=True)
class _Course:
    """One run; who fails twice is measured no more, so that the nth results are of one repeat."""

    network: Network
    directory: Path
    bench: Bench
    scale: Scale
    say: Callable[[str], None]
    findings: Findings = field(default_factory=Findings)
    fallen: set[str] = field(default_factory=set)

    def traffic(self, wanted: Sequence[str]) -> None:
        """Everything that is measured of data planes that run side by side."""
        with ExitStack() as stack:
            peers: dict[str, Peer] = {}
            for key in wanted:
                with self._attempt(key, "start"):
                    peers[key] = stack.enter_context(self._start(key, wanted.index(key)))
                    self.bench.warm_up()
            for repeat in range(self.scale.repeats):
                for measure in TRAFFIC:
                    for key in self._in_turn(wanted, repeat, self._repeats):
                        with self._attempt(key, measure.title), peers[key].in_path():
                            self.bench.warm_up()  # it has slept while the others were measured
                            self._take(measure, key, peers[key])
                self.say(f"traffic, repeat {repeat + 1} of {self.scale.repeats}")

    def memory(self, measure: Memory, wanted: Sequence[str], limit: int) -> None:
        """Memory of idle tunnels; of new processes each time, with at most ``limit`` open files."""
        count = measure.count(self.scale)
        # Connections are not dealt out evenly by all.
        processes = -(-count * _DESCRIPTORS_A_TUNNEL // (limit * 3 // 4))
        for repeat in range(self.scale.memory_repeats if count else 0):
            for key in self._in_turn(wanted, repeat, self._memory_repeats):
                if PEERS[key] is forwarding or (processes > 1 and key in SLOW):
                    continue
                with (
                    self._attempt(key, measure.title),
                    self._start(key, 0, processes) as peer,
                ):
                    self.bench.warm_up()
                    result = self.bench.idle_tunnels(peer, count)
                    self.findings.add(measure.title, peer.name, result)
            self.say(f"{measure.title}, repeat {repeat + 1} of {self.scale.memory_repeats}")
        if processes > 1:
            self.findings.notes.append(
                f"{measure.title}: {processes} processes of each data plane share the connections"
                f" (a process may have at most {limit:,} files open here, a tunnel needs two)"
                f"; left out because it is slow: {', '.join(sorted(SLOW))}."
            )

    def _take(self, measure: Measure, key: str, peer: Peer) -> None:
        if measure.denies and not peer.roots:
            return
        part = SLOW.get(key, 1.0)
        try:
            result = measure.take(self.bench, self.scale, part)
        except RuntimeError as error:  # one connection in a million may hang; one chance more
            self._note(f"{key} was measured again at {measure.title}", error)
            self.bench.warm_up()
            result = measure.take(self.bench, self.scale, part)
        self.findings.add(measure.title, peer.name, result)

    def _start(self, key: str, place: int, processes: int = 1) -> AbstractContextManager[Peer]:
        folder = self.directory / key
        folder.mkdir(exist_ok=True)
        port = LISTEN + place * _PORTS_EACH
        return PEERS[key](self.network, folder, port=port, processes=processes)

    def _in_turn(
        self, wanted: Sequence[str], repeat: int, repeats: Callable[[str], int]
    ) -> Iterator[str]:
        """Who takes part in a repeat; every other one the other way round."""
        for key in wanted if repeat % 2 == 0 else reversed(wanted):
            if key not in self.fallen and repeat < repeats(key):
                yield key

    def _repeats(self, key: str) -> int:
        if key in SLOW:
            return min(_SLOW_REPEATS, self.scale.repeats_of_others)
        return self.scale.repeats if key in PRINCIPAL else self.scale.repeats_of_others

    def _memory_repeats(self, key: str) -> int:
        if key in PRINCIPAL:
            return self.scale.memory_repeats
        return self.scale.memory_repeats_of_others

    @contextmanager
    def _attempt(self, key: str, what: str) -> Iterator[None]:
        """What fails is told and noted, and ends nobody else's measurement."""
        try:
            yield
        except (LabError, OSError, RuntimeError, subprocess.SubprocessError) as error:
            self.fallen.add(key)
            self._note(f"{key} fell out at {what}", error)

    def _note(self, what: str, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self.findings.notes.append(f"{what}: {lines[0]}")
        self.say(f"{what}: {error}")

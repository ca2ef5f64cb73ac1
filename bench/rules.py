"""What the number of names in a policy costs a connection, of every data plane that can load them.

Each data plane runs once for every size, side by side, and all are measured in turn in the same
repeat: ratios are of one data plane to itself at the smallest size. The load asks for 256 names in
turn, spread over the policy, exact ones and others below a wildcard.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from bench.generator import build_load, raise_open_files
from bench.hello import client_hello
from bench.measure import Bench, Result
from bench.network import Network, network
from bench.peers.peer import ALLOWED, LISTEN
from bench.peers.table import PEERS
from bench.policies import below, exact_name, write_policy_of
from bench.ratio import paired_ratio
from lab.namespaces import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.peers.peer import Peer
    from bench.ratio import Ratio

SIZES: Final = (60, 10_000, 100_000)
WANTED: Final = ("haproxy", "egressproxy", "nginx", "squid", "envoy", "sniproxy")
ASKED: Final = 256
OURS: Final = "egressproxy"
GOAL_RATIO: Final = 1.05
"""Of egressproxy at 100,000 names, by the upper end of the interval."""

_PORTS_EACH: Final = 10
_FIRST: Final = ASKED
_LONGEST_S: Final = 4.0
"""Of one measurement: who is slow gets fewer connections."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Connections of one measurement, and repeats."""

    connections: int = 4000
    repeats: int = 9


QUICK: Final = Scale(connections=1000, repeats=3)


@dataclass(frozen=True, slots=True)
class Costs:
    """``connections``: data plane to names in the policy to results, one a repeat.

    ``memory`` is the data plane's private octets after the load.
    """

    connections: dict[str, dict[int, list[Result]]] = field(default_factory=dict)
    memory: dict[str, dict[int, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def asked_of(size: int, count: int = ASKED) -> list[str]:
    """Names that a policy of ``size`` names allows, spread over it, none twice."""
    half = size // 2
    exact = list(dict.fromkeys(exact_name(n * half // (count // 2)) for n in range(count // 2)))
    rest = count - len(exact)
    return [*exact, *(below(n * half // rest, f"a{n}") for n in range(rest))]


def run(scale: Scale, wanted: Sequence[str], say: Callable[[str], None]) -> Costs:
    """Measure the wanted data planes; root and the Debian packages of ``make bench`` are needed."""
    raise_open_files()
    costs = Costs()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o711)  # Squid drops its privileges and then reads
        load = build_load(directory, {"allowed": ALLOWED})
        for size in SIZES:
            hellos = b"".join(map(client_hello, asked_of(size)))
            (directory / f"{size}.hello").write_bytes(hellos)
        built = stack.enter_context(network(directory))
        bench = stack.enter_context(Bench(built, load, directory))
        loads = [
            each
            for place, key in enumerate(wanted)
            for each in _started(stack, _Place(key, place, built, directory), bench, costs, scale)
        ]
        say(f"{len(loads)} data planes run")
        for repeat in range(scale.repeats):
            for each in loads if repeat % 2 == 0 else reversed(loads):
                each.take(bench, costs)
            say(f"cost against number of names, repeat {repeat + 1} of {scale.repeats}")
        for each in loads:
            costs.memory.setdefault(each.peer.name, {})[each.size] = each.peer.private_bytes()
    return costs


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a data plane is started: ``number`` among those that are wanted."""

    key: str
    number: int
    network: Network
    directory: Path


@dataclass(frozen=True, slots=True)
class _Load:
    """One data plane at one size, and how many connections a measurement of it is."""

    peer: Peer
    size: int
    connections: int

    def take(self, bench: Bench, costs: Costs) -> None:
        """Measure once."""
        with self.peer.in_path():
            result = bench.connections(self.connections, hello=str(self.size))
        by_size = costs.connections.setdefault(self.peer.name, {})
        by_size.setdefault(self.size, []).append(result)


def _started(
    stack: ExitStack, place: _Place, bench: Bench, costs: Costs, scale: Scale
) -> list[_Load]:
    """The data plane at every size that it takes; what it does not take is noted."""
    loads = []
    for nth, size in enumerate(SIZES):
        folder = place.directory / f"{place.key}-{size}"
        folder.mkdir()
        write_policy_of(size, folder)
        (folder / "asked.txt").write_text("\n".join(asked_of(size)))
        port = LISTEN + place.number * _PORTS_EACH + nth
        try:
            peer = stack.enter_context(PEERS[place.key](place.network, folder, port=port))
            first = bench.connections(_FIRST, hello=str(size))
        except (LabError, RuntimeError) as error:
            costs.notes.append(f"{place.key} at {size:,} names: {str(error).splitlines()[0]}")
            break
        connections = min(scale.connections, max(_FIRST, int(first.rate * _LONGEST_S)))
        loads.append(_Load(peer, size, connections))
    return loads


def table(costs: Costs) -> str:
    """A Markdown table: hub microseconds, ratios to the smallest size, memory."""
    base, *others = SIZES
    heads = [f"{size:,} names" for size in SIZES]
    columns = [
        "new TLS connection (hub us)",
        *heads,
        *(f"{head} to {base} (95 %, pairs)" for head in heads[1:]),
        f"MB at {SIZES[-1]:,} / {base}",
    ]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, by_size in costs.connections.items():
        cells = [_value(by_size.get(size, [])) for size in SIZES]
        cells += [_ratio(by_size, size) for size in others]
        cells.append(_memory(costs.memory.get(name, {})))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    notes = [f"- {note}" for note in (*_goal(costs), *costs.notes)]
    return "\n".join([*lines, *(("", *notes) if notes else ())]) + "\n"


def _goal(costs: Costs) -> Iterator[str]:
    by_size = costs.connections.get(OURS, {})
    if SIZES[-1] in by_size and len(by_size[SIZES[-1]]) == len(by_size[SIZES[0]]):
        ratio = _paired(by_size, SIZES[-1])
        verdict = "met" if ratio.high <= GOAL_RATIO else "not met"
        yield f"goal: {OURS} at {SIZES[-1]:,} names at most {GOAL_RATIO} of {SIZES[0]}: {verdict}"


def _value(found: Sequence[Result]) -> str:
    return f"{median(each.value for each in found):,.0f}" if found else "-"


def _ratio(by_size: dict[int, list[Result]], size: int) -> str:
    base, found = by_size.get(SIZES[0], []), by_size.get(size, [])
    if not found or len(base) != len(found):
        return "-"
    return str(_paired(by_size, size))


def _paired(by_size: dict[int, list[Result]], size: int) -> Ratio:
    base, found = by_size[SIZES[0]], by_size[size]
    return paired_ratio([each.value for each in found], [each.value for each in base])


def _memory(octets: dict[int, int]) -> str:
    most, least = (octets.get(size) for size in (SIZES[-1], SIZES[0]))
    return f"{most / 1e6:,.0f} / {least / 1e6:,.0f}" if most and least else "-"


def write(costs: Costs, out: Path) -> str:
    """Write ``rules.json`` and ``rules.md``; returns the table."""
    (out / "rules.json").write_text(json.dumps(asdict(costs), indent=1))
    text = table(costs)
    (out / "rules.md").write_text(text)
    return text

"""``python -m bench.scale``: what more workers cost on one core, and what they bring over several.

On one core: CPU a new connection with two and three workers against one, in interleaved pairs; the
machine has one more core then, for the load. Over cores, ``--cores 0-3 --load-cores 4-7``: new
connections a second with a worker a core, against one worker; how busy both sides were says which
of them was the limit. Written to ``bench/out/scale.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from bench.cores import parse_cores
from bench.generator import build_load, raise_open_files
from bench.machine import machine
from bench.measure import Bench
from bench.network import HUB_CPU, LOAD_CPU, network
from bench.over_cores import WARM_UP, Cores, over_cores
from bench.peers.ours import compiled, serve
from bench.peers.peer import ALLOWED, DENIED, LISTEN
from bench.ratio import ENOUGH_PAIRS, paired_ratio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.network import Network
    from bench.over_cores import Rate
    from bench.peers.peer import Peer
    from bench.ratio import Ratio

OUT: Final = Path(__file__).with_name("out")
BUSY: Final = ("hub_busy", "load_busy")
GOAL: Final = 1.1
"""CPU a connection of two workers on one core, in that of one."""
REPEATS_OF_A_START: Final = 4
LOAD_IS_THE_LIMIT: Final = 0.9
HELLOS: Final = {"allowed": ALLOWED, "denied": DENIED}


def main() -> int:
    """Measure and print."""
    options = _options()
    if os.geteuid() != 0:
        print("network namespaces need root", file=sys.stderr)
        return 1
    cores = Cores(parse_cores(options.cores), parse_cores(options.load_cores))
    if set(cores.hub) & set(cores.load):
        print("the hub and the load need CPUs of their own", file=sys.stderr)
        return 1
    raise_open_files()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        load = build_load(directory, HELLOS)
        with network(directory) as built:
            if len(cores.hub) == 1:
                text, rows = _one_core(built, load, options)
            else:
                text, rows = _several(built, load, cores, options)
    _write(f"{machine()}\n\n{text}", rows)
    return 0


def _one_core(
    built: Network, load: Path, options: argparse.Namespace
) -> tuple[str, dict[int, list[float]]]:
    counts = [int(count) for count in options.workers.split(",")]
    values = on_one_core(
        built, load, counts, repeats=options.repeats, connections=options.connections
    )
    return one_core_table(values) + unmeasured(os.cpu_count() or 1), values


def _several(
    built: Network, load: Path, cores: Cores, options: argparse.Namespace
) -> tuple[str, dict[int, list[float]]]:
    rates = over_cores(built, load, cores, repeats=options.repeats, connections=options.connections)
    return cores_table(rates), {n: [each.rate for each in found] for n, found in rates.items()}


def on_one_core(
    built: Network, load: Path, counts: Sequence[int], *, repeats: int, connections: int
) -> dict[int, list[float]]:
    """Hub microseconds a connection of each number of workers, one a repeat.

    All services run, and which of them is in the path changes from one measurement to the next.
    They are started anew every few repeats: where a process has its memory is chance, and worth
    some percent for as long as it lives.
    """
    found: dict[int, list[float]] = defaultdict(list)
    with Bench(built, load, load.parent) as bench:
        for start in range(0, repeats, REPEATS_OF_A_START):
            with _services(built, load.parent / f"start-{start}", counts) as peers:
                for count in counts:
                    with peers[count].in_path():
                        bench.connections(WARM_UP)
                for repeat in range(start, min(repeats, start + REPEATS_OF_A_START)):
                    for count in counts if repeat % 2 == 0 else reversed(counts):
                        with peers[count].in_path():
                            result = bench.connections(connections)
                        found[count].append(result.value)
                        print(f"{count} workers: {result.value:.0f} us, {result.rate:,.0f}/s")
    return dict(found)


@contextmanager
def _services(built: Network, directory: Path, counts: Sequence[int]) -> Iterator[dict[int, Peer]]:
    """A service with each number of workers, each with a policy and a log of its own."""
    peers: dict[int, Peer] = {}
    with ExitStack() as stack:
        for port, count in enumerate(counts, LISTEN):
            own = directory / f"workers-{count}"
            own.mkdir(parents=True)
            service = serve(own.name, built, own, environment=compiled(), workers=count, port=port)
            peers[count] = stack.enter_context(service)
        yield peers


def one_core_table(values: dict[int, list[float]]) -> str:
    """CPU a connection by the number of workers; the goal is the interval's upper end."""
    lines = ["| workers on one core | hub us a connection | to one worker (95 %, pairs) | goal |"]
    lines.append("|---|---|---|---|")
    for count, found in sorted(values.items()):
        cells = ["", ""]
        if count > 1 and 1 in values:
            ratio = paired_ratio(found, values[1])
            cells = [str(ratio), _verdict(ratio) if count == 2 else ""]
        lines.append(f"| {count} | {median(found):.0f} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + f"\n\nGoal: at most {GOAL} of one worker's, by the upper end.\n"


def _verdict(ratio: Ratio) -> str:
    if ratio.pairs < ENOUGH_PAIRS:
        return "too few pairs"
    return "met" if ratio.high <= GOAL else "missed"


def unmeasured(cpus: int) -> str:
    """What this run does not say, and the command that says it on a larger machine."""
    half = max(2, cpus // 2)
    return (
        f"\nScaling over real cores is unmeasured in this run on a machine of {cpus} CPUs."
        " With more, half of them for the load:\n\n"
        f"    python -m bench.scale --cores 0-{half - 1} --load-cores {half}-{2 * half - 1}\n"
    )


def cores_table(rates: dict[int, list[Rate]]) -> str:
    """Connections a second by the number of cores, a worker each."""
    lines = ["| cores, a worker each | connections/s | to one (95 %, pairs) | a core | busy: hub |"]
    lines[0] += " busy: load | limit |"
    lines.append("|---" * 7 + "|")
    one = [each.rate for each in rates[1]]
    for count, found in sorted(rates.items()):
        hub, load = (median(getattr(each, key) for each in found) for key in BUSY)
        ratio = paired_ratio([each.rate for each in found], one)
        limit = "the load" if load > LOAD_IS_THE_LIMIT and load > hub else "the hub"
        lines.append(
            f"| {count} | {median(each.rate for each in found):,.0f} | {ratio}"
            f" | {ratio.median / count:.2f} | {hub:.0%} | {load:.0%} | {limit} |"
        )
    return "\n".join(lines) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--repeats", type=int, default=32)
    parser.add_argument("--connections", type=int, default=3000, help="in one measurement")
    parser.add_argument("--workers", default="1,2,3", help="numbers of workers on one core")
    parser.add_argument("--cores", default=str(HUB_CPU), help="the hub's CPUs, as 0-3")
    parser.add_argument("--load-cores", default=str(LOAD_CPU), help="the load's, as 4-7")
    return parser.parse_args()


def _write(text: str, rows: dict[int, list[float]]) -> None:
    OUT.mkdir(exist_ok=True)
    (OUT / "scale.md").write_text(text)
    (OUT / "scale.json").write_text(json.dumps(rows, indent=1))
    print(f"\n{text}\nwritten to {OUT}")


if __name__ == "__main__":
    sys.exit(main())

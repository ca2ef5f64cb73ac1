"""The micro half of ``python -m bench``: the compiled and the interpreted copy, and their tables.

Each copy is measured in processes of its own, with that copy first on the path, and says which it
is: a run that measured the other one by mistake ends with an error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from bench.peers.ours import NATIVE
from bench.ratio import paired_ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parents[1]
GOAL_RATIO: Final = 1.05
"""A decision at 100,000 names to one at 60, by the upper end of the interval."""
GOAL_US: Final = 0.5
"""A decision at 1,000,000 names."""

_WHICH: Final = "import egressproxy.policy.decide as module; print(module.__file__)"
_UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


@dataclass(frozen=True, slots=True)
class Build:
    """One copy of egressproxy: where it is, and how the files of its flow path end."""

    name: str
    path: Path
    ending: str


COMPILED: Final = Build("compiled", NATIVE, ".so")
INTERPRETED: Final = Build("interpreted", ROOT, ".py")


@dataclass(frozen=True, slots=True)
class Found:
    """What one copy took: ``times`` by group and test in seconds, ``costs`` of ``decide_cost``."""

    times: Mapping[str, Mapping[str, float]]
    costs: Mapping[str, Mapping[str, Sequence[float]]]


def run(out: Path, say: Callable[[str], None]) -> str:
    """Measure what there is and write ``micro.json`` and ``micro.md``; returns the table.

    Raises:
        RuntimeError: a copy is not what it should be.
        subprocess.CalledProcessError: a benchmark failed; it said why.
    """
    builds = [build for build in (COMPILED, INTERPRETED) if build.path.exists()]
    found = {}
    for build in builds:
        say(f"micro: {build.name} ({build.path.name}/)")
        found[build.name] = _measure(build, out / f"micro-{build.name}.json")
    rows = {name: {"times": each.times, "costs": each.costs} for name, each in found.items()}
    (out / "micro.json").write_text(json.dumps(rows, indent=1))
    text = f"{cost_table(found)}\n{time_table(found)}"
    (out / "micro.md").write_text(text)
    return text


def _measure(build: Build, report: Path) -> Found:
    environment = {
        **os.environ,
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join((str(build.path), str(ROOT))),
    }

    def python(*argv: str) -> str:
        done = subprocess.run(
            (sys.executable, *argv), env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    which = python("-c", _WHICH).strip()
    if not which.endswith(build.ending):
        raise RuntimeError(f"{build.name}: {which} is what would be measured")
    tests = sorted(str(path) for path in Path(__file__).parent.glob("test_micro*.py"))
    # Without pytest's own changes of the path, which put the checkout first.
    options = ("-q", "-o", "pythonpath=", "--import-mode=append", "--benchmark-disable-gc")
    python("-m", "pytest", *tests, *options, f"--benchmark-json={report}")
    costs = json.loads(python("-m", "bench.decide_cost"))
    return Found(times_of(json.loads(report.read_text())), costs)


def times_of(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Group to test to the median seconds of one step, from pytest-benchmark's JSON."""
    times: dict[str, dict[str, float]] = {}
    for each in report["benchmarks"]:
        group = times.setdefault(each["group"], {})
        name = each["name"].removeprefix("test_").replace("_", " ").replace("[", " (")
        seconds = each["stats"]["median"] / each["extra_info"].get("steps", 1)
        group[name.replace("]", ")")] = seconds
    return times


def time_table(found: Mapping[str, Found]) -> str:
    """A Markdown table: a line a test, a column a copy."""
    lines = [f"| median | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    first = next(iter(found.values()))
    for group, tests in first.times.items():
        for test in tests:
            cells = [duration(each.times[group][test]) for each in found.values()]
            name = test if test.startswith(group) else f"{group}: {test}"
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cost_table(found: Mapping[str, Found]) -> str:
    """A Markdown table: microseconds a decision by number of names, and whether goals are met."""
    sizes = list(next(iter(next(iter(found.values())).costs.values())))
    heads = [f"{int(size):,} names" for size in sizes]
    ratios = [f"{head} to {sizes[0]} (95 %, pairs)" for head in heads[1:]]
    columns = ["decide (us)", *heads, *ratios]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, each in found.items():
        for kind, costs in each.costs.items():
            cells = [f"{median(costs[size]):.2f}" for size in sizes]
            cells += [str(paired_ratio(costs[size], costs[sizes[0]])) for size in sizes[1:]]
            lines.append(f"| {name}, {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n" + "\n".join(goals(found)) + "\n"


def goals(found: Mapping[str, Found]) -> list[str]:
    """A line for every copy and kind of name: what the goals make of it."""
    lines = []
    for name, each in found.items():
        for kind, costs in each.costs.items():
            ratio = paired_ratio(costs["100000"], costs["60"])
            many_us = median(costs["1000000"])
            lines.append(
                f"- {name}, {kind}: 100,000 names to 60 at most {GOAL_RATIO}:"
                f" {_met(ratio.high <= GOAL_RATIO)}; 1,000,000 names under {GOAL_US} us:"
                f" {_met(many_us < GOAL_US)}"
            )
    return lines


def _met(is_met: bool) -> str:
    return "met" if is_met else "not met"


def duration(seconds: float) -> str:
    """Three digits and a unit: ``4.81 us``."""
    scale, unit = next((pair for pair in _UNITS if seconds >= pair[0]), _UNITS[-1])
    return f"{seconds / scale:.3g} {unit}"

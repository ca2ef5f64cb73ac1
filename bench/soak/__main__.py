"""Hold a service under load for minutes, with reloads; then tell what grew.

Idle tunnels stand, busy ones move and compare every octet, connections of every kind come and go,
the policy changes (every third one is bad and must be refused), metrics are scraped, pages read.
Needs root, for network namespaces. Writes ``bench/out/soak.md``, ``.json`` and the plot.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.generator import build_load, raise_open_files
from bench.machine import machine
from bench.network import LOAD_CPU, network
from bench.peers.peer import ALLOWED, DENIED
from bench.soak import verdict
from bench.soak.samples import as_json
from bench.soak.stage import stage
from bench.soak.watch import Plan, hold

if TYPE_CHECKING:
    from bench.soak.watch import Course

OUT: Final = Path(__file__).resolve().parents[1] / "out"
PLOTTER: Final = Path(__file__).resolve().parents[2] / ".venv-bench" / "bin" / "python"


def main() -> int:
    """Run the soak; 0 where nothing grew, broke or was lost."""
    options = _options()
    if os.geteuid() != 0:
        print("network namespaces need root", file=sys.stderr)
        return 2
    limit = raise_open_files()
    os.sched_setaffinity(0, {LOAD_CPU})
    plan = Plan(minutes=options.minutes, idle=options.idle, busy=options.busy, open_files=limit)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        directory = Path(name)
        build_load(directory, {"allowed": ALLOWED, "denied": DENIED})
        with network(directory) as built, stage(built, directory, plan) as staged:
            course = hold(staged, plan)
        course = course.with_records(directory / "log")
    return _tell(plan, course)


def _tell(plan: Plan, course: Course) -> int:
    checks = [
        *verdict.traffic(course.facts),
        *verdict.records(course.facts),
        *verdict.returned(course.start, course.end),
        *verdict.growth(course.settled(plan.warm_up_s), plan.block_s),
    ]
    text = f"{machine()}\n\n{plan}\n\n{verdict.table(checks)}"
    told = course.facts.tally["told"]
    text += "".join(f"\n    {line}" for line in told)
    OUT.mkdir(exist_ok=True)
    (OUT / "soak.md").write_text(text)
    rows = {"plan": str(plan), "warm_up_s": plan.warm_up_s, "samples": as_json(course.samples)}
    rows["tally"] = course.facts.tally
    (OUT / "soak.json").write_text(json.dumps(rows))
    if PLOTTER.exists():
        plot = Path(__file__).with_name("plot.py")
        subprocess.run([str(PLOTTER), str(plot), str(OUT / "soak.json"), str(OUT)], check=True)
    print(f"\n{text}\nwritten to {OUT}")
    return 0 if all(check.ok for check in checks) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--idle", type=int, default=20_000, help="idle tunnels")
    parser.add_argument("--busy", type=int, default=200, help="busy tunnels")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""``python -m bench``: micro benchmarks, then (as root) those with traffic; see bench/out/."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

from bench import macro, micro, reload, report, rules
from bench.machine import machine, versions
from bench.measures import QUICK, Scale
from bench.peers.table import PEERS

OUT = Path(__file__).with_name("out")
PLOTTER = Path(__file__).resolve().parent.with_name(".venv-bench") / "bin" / "python"
"""An environment of its own: matplotlib is nothing that the product or its tests need."""


def main() -> int:
    """Run what was asked for and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small loads, three repeats")
    parser.add_argument("--repeats", type=int, help="interleaved repeats of ours, HAProxy and none")
    parser.add_argument("--only", choices=("micro", "macro", "rules"), help="one part")
    everybody = ",".join(PEERS)
    parser.add_argument("--peers", default=everybody, help=f"comma-separated [{everybody}]")
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    if options.only in (None, "micro"):
        print(micro.run(OUT, _say))
    if options.only == "micro":
        return 0
    if os.geteuid() != 0:
        print("the macro benchmark builds network namespaces: run it as root", file=sys.stderr)
        return 0
    if options.only in (None, "macro"):
        _macro(options)
    if options.only in (None, "rules"):
        _rules(options)
    return 0


def _macro(options: argparse.Namespace) -> None:
    """Measure, draw and print; the table stays where the plots are."""
    scale = QUICK if options.quick else Scale()
    if options.repeats:
        scale = replace(scale, repeats=options.repeats)
    findings = macro.run(scale, options.peers.split(","), _say)
    text = report.document(findings, machine(), versions())
    (OUT / "macro.md").write_text(text)
    (OUT / "macro.json").write_text(json.dumps(asdict(findings), indent=1))
    _plot("plot.py", "macro.json")
    print(f"\n{text}\nwritten to {OUT}")


def _rules(options: argparse.Namespace) -> None:
    """What a large policy costs: a connection, a reload."""
    scale = rules.QUICK if options.quick else rules.Scale()
    peers = options.peers.split(",")
    costs = rules.run(scale, [key for key in rules.WANTED if key in peers], _say)
    text = rules.write(costs, OUT)
    _plot("plot_rules.py", "rules.json")
    reloads = reload.run(scale.repeats, [key for key in reload.WAYS if key in peers], _say)
    print(f"\n{text}\n{reload.write(reloads, OUT)}\nwritten to {OUT}")


def _plot(program: str, source: str) -> None:
    if PLOTTER.exists():
        plot = Path(__file__).with_name(program)
        subprocess.run([str(PLOTTER), str(plot), str(OUT / source), str(OUT)], check=True)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())

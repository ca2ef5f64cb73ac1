"""``python -m bench``: micro benchmarks, then (as root) the macro benchmark; see bench/out/."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from bench import macro, report
from bench.peers.table import PEERS

OUT = Path(__file__).with_name("out")
PLOTTER = Path(__file__).resolve().parent.with_name(".venv-bench") / "bin" / "python"
"""An environment of its own: matplotlib is nothing that the product or its tests need."""


def main() -> int:
    """Run what was asked for and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small loads, three repeats")
    parser.add_argument("--repeats", type=int, help="interleaved repeats of every data plane")
    parser.add_argument("--only", choices=("micro", "macro"), help="one half")
    everybody = ",".join(PEERS)
    parser.add_argument("--peers", default=everybody, help=f"comma-separated [{everybody}]")
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    if options.only != "macro":
        micro = Path(__file__).with_name("test_micro.py")
        argv = [
            sys.executable,
            "-m",
            "pytest",
            str(micro),
            "-q",
            "--benchmark-columns=min,median,ops",
        ]
        subprocess.run(argv, check=True)
    if options.only == "micro":
        return 0
    if os.geteuid() != 0:
        print("the macro benchmark builds network namespaces: run it as root", file=sys.stderr)
        return 0
    scale = macro.QUICK if options.quick else macro.Scale()
    if options.repeats:
        scale = macro.Scale(**{**asdict(scale), "repeats": options.repeats})
    results = macro.run(
        scale, tuple(options.peers.split(",")), lambda text: print(text, flush=True)
    )
    text = f"{report.machine()}\n\n{report.table(results)}\n{report.everybody(results)}"
    (OUT / "macro.md").write_text(text)
    rows = {
        title: {name: [asdict(each) for each in found] for name, found in planes.items()}
        for title, planes in results.items()
    }
    (OUT / "macro.json").write_text(json.dumps(rows, indent=1))
    if PLOTTER.exists():
        plot = Path(__file__).with_name("plot.py")
        subprocess.run([str(PLOTTER), str(plot), str(OUT / "macro.json"), str(OUT)], check=True)
    print(f"\n{text}\nwritten to {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

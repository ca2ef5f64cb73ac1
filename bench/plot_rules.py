"""``plot_rules.py rules.json FOLDER``: what more names cost a connection, as PNG and SVG.

A dot is the median of a data plane's own ratios to its smallest policy, the line their interval;
the axis is logarithmic. Runs in an environment of its own, with matplotlib.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib  # type: ignore[import-not-found,unused-ignore]
import matplotlib.pyplot as plt  # type: ignore[import-not-found,unused-ignore]

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.plot import dot
from bench.ratio import Ratio, paired_ratio

OURS: Final = "egressproxy"
GOAL_AT: Final = 100_000
GOAL: Final = 1.05
_OUR_COLOUR: Final = "#0b6e4f"
_OTHER_COLOUR: Final = "#5f6368"
_GOAL_COLOUR: Final = "#c05a00"
_TICKS: Final = (0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)

Sizes = dict[str, list[dict[str, float]]]


def main(source: Path, folder: Path) -> None:
    """Draw a panel for every size but the smallest."""
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"
    planes: dict[str, Sizes] = json.loads(source.read_text())["connections"]
    ratios = {name: ratios_of(sizes) for name, sizes in planes.items()}
    base, *others = sorted({size for by_size in ratios.values() for size in by_size})
    figure, axes = plt.subplots(
        1, len(others), figsize=(11, 3.4), layout="constrained", squeeze=False
    )
    for axis, size in zip(axes.flat, others, strict=True):
        found = {name: by_size[size] for name, by_size in ratios.items() if size in by_size}
        _panel(axis, found, GOAL if size == GOAL_AT else None)
        axis.set_title(f"{size:,} names", loc="left", fontsize=10)
    figure.suptitle(f"Hub CPU a new TLS connection: ratio to the same data plane at {base} names")
    for kind in ("png", "svg"):
        figure.savefig(folder / f"rules.{kind}", dpi=150)


def ratios_of(sizes: Sizes) -> dict[int, Ratio]:
    """By number of names; sizes that lack a repeat are left out."""
    base = [each["value"] for each in min(sizes.items(), key=lambda item: int(item[0]))[1]]
    return {
        int(size): paired_ratio([each["value"] for each in found], base)
        for size, found in sizes.items()
        if len(found) == len(base)
    }


def _panel(axis: Any, ratios: dict[str, Ratio], goal: float | None) -> None:
    names = sorted(ratios, key=lambda name: -ratios[name].median)
    for row, name in enumerate(names):
        dot(axis, row, ratios[name], _OUR_COLOUR if name == OURS else _OTHER_COLOUR)
    axis.axvline(1, color="#999999", linewidth=1, zorder=0)
    if goal is not None:
        axis.axvline(goal, color=_GOAL_COLOUR, linewidth=1, linestyle="--", zorder=0)
        at = (goal, len(names) - 0.45)
        style = {"textcoords": "offset points", "fontsize": 8, "va": "center"}
        axis.annotate(f"goal {goal}", at, (4, 0), color=_GOAL_COLOUR, **style)
    axis.set_xscale("log")
    axis.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axis.set_xlim(0.65, max(2.0, 1.8 * max(ratio.high for ratio in ratios.values())))
    axis.minorticks_off()
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(-0.6, len(names) - 0.1)
    axis.grid(axis="x", color="#eeeeee")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

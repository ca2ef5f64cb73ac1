"""``plot.py macro.json FOLDER``: the ratios to HAProxy as a picture, PNG and SVG.

A dot is the median of the pairs, the line its 95 % interval; the axis is logarithmic, since twice
and half are equally far from the same. Runs in an environment of its own, with matplotlib.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib  # type: ignore[import-not-found,unused-ignore]
import matplotlib.pyplot as plt  # type: ignore[import-not-found,unused-ignore]

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.ratio import Ratio, paired_ratio

REFERENCE = "HAProxy"
OURS = "egressproxy"


def main(source: Path, folder: Path) -> None:
    """Draw every measure that has HAProxy in it, one below the other."""
    matplotlib.use("Agg")
    results: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(source.read_text())
    measures = {title: _ratios(planes) for title, planes in results.items() if REFERENCE in planes}
    figure, axes = plt.subplots(
        len(measures), 1, figsize=(8, 2.2 * len(measures)), layout="constrained", squeeze=False
    )
    for axis, (title, ratios) in zip(axes[:, 0], measures.items(), strict=True):
        _draw(axis, title, ratios)
    for kind in ("png", "svg"):
        figure.savefig(folder / f"macro.{kind}", dpi=150)


def _ratios(planes: dict[str, list[dict[str, Any]]]) -> dict[str, Ratio]:
    theirs = [each["value"] for each in planes[REFERENCE]]
    return {
        name: paired_ratio([each["value"] for each in found], theirs)
        for name, found in planes.items()
        if name != REFERENCE and len(found) == len(theirs)
    }


def _draw(axis: Any, title: str, ratios: dict[str, Ratio]) -> None:
    names = sorted(ratios, key=lambda name: -ratios[name].median)
    for row, name in enumerate(names):
        ratio = ratios[name]
        colour = "#0b6e4f" if name == OURS else "#555555"
        axis.plot([ratio.low, ratio.high], [row, row], color=colour, linewidth=2)
        axis.plot([ratio.median], [row], "o", color=colour)
        axis.annotate(
            f"{ratio.median:.2f}",
            (ratio.median, row),
            (0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=colour,
        )
    axis.axvline(1, color="#b00020", linewidth=1)
    axis.set_xscale("log")
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(-0.7, len(names) - 0.2)
    axis.set_title(f"{title}: ratio to {REFERENCE}, less is better", loc="left", fontsize=10)
    axis.grid(axis="x", color="#dddddd")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

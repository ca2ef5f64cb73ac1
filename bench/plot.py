"""``plot.py macro.json FOLDER``: ratios to HAProxy and to plain forwarding, as PNG and SVG.

A dot is the median of the pairs, the line its interval; the axis is logarithmic, since twice and
half are equally far from the same. Runs in an environment of its own, with matplotlib.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib  # type: ignore[import-not-found,unused-ignore]
import matplotlib.pyplot as plt  # type: ignore[import-not-found,unused-ignore]

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.measures import HAPROXY, MEASURES
from bench.ratio import Ratio, paired_ratio

OURS: Final = "egressproxy"
FORWARDING: Final = "no proxy"
_COLUMNS: Final = 2
_ROW_INCHES: Final = 0.26
_OUR_COLOUR: Final = "#0b6e4f"
_OTHER_COLOUR: Final = "#5f6368"
_GOAL_COLOUR: Final = "#c05a00"
_TICKS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
_NARROW: Final = 1.15
_LEAST: Final = 0.01

Planes = dict[str, list[dict[str, float]]]


def main(source: Path, folder: Path) -> None:
    """Draw both pictures."""
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"
    results: dict[str, Planes] = json.loads(source.read_text())["results"]
    pictures = (
        ("macro", HAPROXY, {measure.title: measure.reference for measure in MEASURES}),
        ("forwarding", "plain forwarding", dict.fromkeys(results, FORWARDING)),
    )
    for name, told, references in pictures:
        drawn = {
            title: ratios
            for title, planes in results.items()
            if (ratios := _ratios(planes, references[title]))
        }
        if drawn:
            _picture(drawn, told, folder / name)


def _picture(drawn: dict[str, dict[str, Ratio]], reference: str, path: Path) -> None:
    rows = -(-len(drawn) // _COLUMNS)
    most = max(len(ratios) for ratios in drawn.values())
    figure, axes = plt.subplots(
        rows,
        _COLUMNS,
        figsize=(12, rows * (most * _ROW_INCHES + 0.9)),
        layout="constrained",
        squeeze=False,
    )
    for axis in axes.flat[len(drawn) :]:
        axis.remove()
    known = {measure.title: measure for measure in MEASURES} if reference == HAPROXY else {}
    for axis, (title, ratios) in zip(axes.flat, drawn.items(), strict=False):
        measure = known.get(title)
        beside = "" if not measure or measure.reference == HAPROXY else f", to {measure.reference}"
        _draw(axis, title + beside, ratios, measure.goal if measure else None)
    figure.suptitle(
        f"Ratio to {reference} (= 1), less is better; median of pairs and its interval", fontsize=12
    )
    for kind in ("png", "svg"):
        figure.savefig(path.with_suffix(f".{kind}"), dpi=130)
    plt.close(figure)


def _ratios(planes: Planes, reference: str) -> dict[str, Ratio]:
    theirs = [each["value"] for each in planes.get(reference, [])]
    found = {}
    for name, results in planes.items():
        if name != reference and (pairs := min(len(results), len(theirs))):
            ours = [each["value"] for each in results[:pairs]]
            found[name] = paired_ratio(ours, theirs[:pairs])
    return found


def _draw(axis: Any, title: str, ratios: dict[str, Ratio], goal: float | None) -> None:
    names = sorted(ratios, key=lambda name: -ratios[name].median)
    for row, name in enumerate(names):
        dot(axis, row, ratios[name], _OUR_COLOUR if name == OURS else _OTHER_COLOUR)
    axis.axvline(1, color="#000000", linewidth=0.8)
    if goal is not None:
        axis.axvline(goal, color=_GOAL_COLOUR, linewidth=1.2, linestyle="--")
        axis.annotate(
            f"goal {goal:g}",
            (goal, 1),
            (-3, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=_GOAL_COLOUR,
            fontsize=8,
            ha="right" if goal < 1 else "left",
        )
    _scale(axis, ratios)
    axis.set_yticks(range(len(names)), names)
    for label in axis.get_yticklabels():
        if label.get_text() == OURS:
            label.set(color=_OUR_COLOUR, fontweight="bold")
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.set_title(title, loc="left", fontsize=10, fontweight="bold", pad=12)
    axis.grid(axis="x", color="#e0e0e0")
    axis.set_axisbelow(True)


def dot(axis: Any, row: int, ratio: Ratio, colour: str) -> None:
    """A median with its interval and its figure."""
    axis.plot([ratio.low, ratio.high], [row, row], color=colour, linewidth=2)
    axis.plot([ratio.median], [row], "o", color=colour, markersize=5)
    axis.annotate(
        f"{ratio.median:.2f}",
        (ratio.high, row),
        (5, 0),
        textcoords="offset points",
        va="center",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        fontsize=8,
        color=colour,
    )


def _scale(axis: Any, ratios: dict[str, Ratio]) -> None:
    axis.set_xscale("log")
    # A difference of two noisy figures may be below nothing, which no logarithm shows.
    low = max(_LEAST, min(1.0, *(ratio.low for ratio in ratios.values())))
    high = max(1.0, *(ratio.high for ratio in ratios.values()))
    axis.set_xlim(low / _NARROW, high * _NARROW * (high / low) ** 0.1)
    ticks = [tick for tick in _TICKS if low / _NARROW <= tick <= high * _NARROW]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

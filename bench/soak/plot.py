"""``plot.py soak.json FOLDER``: memory, descriptors and flows over time, PNG and SVG.

Runs in an environment of its own, with matplotlib.
"""

from __future__ import annotations

import json
import sys
import textwrap
from math import nan
from pathlib import Path
from typing import Any, Final

import matplotlib  # type: ignore[import-not-found,unused-ignore]
import matplotlib.pyplot as plt  # type: ignore[import-not-found,unused-ignore]

PANELS: Final = (
    ("memory", 1e6, False, "private memory (MB)"),
    ("memory", 1e3, True, "private memory, change since the warm-up (kB)"),
    ("blocks", 1, True, "interpreter's blocks, change since the warm-up"),
    ("files", 1, False, "descriptors but pipes"),
    ("pipes", 1, False, "descriptors of pipes"),
    ("tasks", 1, False, "asyncio tasks"),
)
"""Figure, unit, whether its change is drawn, title."""
COLOURS: Final = ("#0b6e4f", "#1f5fa8", "#b35c00", "#7a3e9d", "#555555")


def main(source: Path, folder: Path) -> None:
    """Draw a panel a figure, a line a process."""
    matplotlib.use("Agg")
    soak: dict[str, Any] = json.loads(source.read_text())
    samples = soak["samples"]
    figure, axes = plt.subplots(
        len(PANELS) + 1, 1, figsize=(9, 2.1 * (len(PANELS) + 1)), sharex=True, layout="constrained"
    )
    warm_up = soak["warm_up_s"]
    for axis, (key, scale, is_change, title) in zip(axes[:-1], PANELS, strict=True):
        _draw(axis, samples, key, scale, warm_up if is_change else None)
        axis.set_title(title, loc="left", fontsize=10)
    axes[0].legend(fontsize=8, ncols=len(samples[0]["held"]), loc="lower right")
    axes[-1].plot(_minutes(samples), [each["flows"] for each in samples], color="#222222")
    axes[-1].set_title("open flows", loc="left", fontsize=10)
    axes[-1].set_ylim(bottom=0, top=1.1 * max(each["flows"] for each in samples))
    axes[-1].set_xlabel("minutes; shaded: warm-up")
    for axis in axes:
        axis.axvspan(0, warm_up / 60, color="#eeeeee", zorder=0)
        axis.grid(color="#dddddd")
        axis.set_xlim(left=0)
    figure.suptitle(textwrap.fill(soak["plan"], 100), fontsize=9)
    for kind in ("png", "svg"):
        figure.savefig(folder / f"soak.{kind}", dpi=120)


def _draw(
    axis: Any, samples: list[dict[str, Any]], key: str, scale: float, since: float | None
) -> None:
    """A line a process; of its change where it is told since when."""
    roles = list(samples[0]["held"])
    for role, colour in zip(roles, COLOURS * len(roles), strict=False):
        values = [each["held"][role][key] / scale for each in samples]
        if since is not None:
            first = next(n for n, each in enumerate(samples) if each["at"] >= since)
            values = [
                value - values[first] if n >= first else nan for n, value in enumerate(values)
            ]
        axis.plot(_minutes(samples), values, color=colour, label=role)
    if since is None:
        axis.set_ylim(bottom=0, top=axis.get_ylim()[1] * 1.1)


def _minutes(samples: list[dict[str, Any]]) -> list[float]:
    return [each["at"] / 60 for each in samples]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

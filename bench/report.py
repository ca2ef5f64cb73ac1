"""The table: ratios beside HAProxy, absolute medians for orientation."""

from __future__ import annotations

import os
import platform
from statistics import median
from typing import TYPE_CHECKING, Final

from bench.macro import MEASURES
from bench.ratio import paired_ratio

if TYPE_CHECKING:
    from bench.macro import Results
    from bench.measure import Result

OURS: Final = "egressproxy"
INTERPRETED: Final = "interpreted"
REFERENCE: Final = "HAProxy"


def table(results: Results) -> str:
    """A Markdown table; the ratio column is ours to HAProxy's, paired within each repeat."""
    lines = [
        "| measure | no proxy | HAProxy | egressproxy | ratio to HAProxy (95 %, pairs)"
        " | ratio interpreted |",
        "|---|---|---|---|---|---|",
    ]
    for measure in MEASURES:
        planes = results.get(measure.title, {})
        cells = [_cell(planes.get(name, [])) for name in ("no proxy", REFERENCE, OURS)]
        cells += [_ratio(planes, OURS), _ratio(planes, INTERPRETED)]
        lines.append(f"| {measure.title} ({measure.unit}) | {' | '.join(cells)} |")
    one = results.get("one at a time", {})
    latency = [_latency(one.get(name, [])) for name in ("no proxy", REFERENCE, OURS)]
    lines.append(f"| latency of one transaction p50 / p99 (us) | {' | '.join(latency)} | | |")
    return "\n".join(lines) + "\n"


def everybody(results: Results) -> str:
    """A Markdown table with a line a data plane: its ratio to HAProxy in every measure."""
    names = list(dict.fromkeys(name for planes in results.values() for name in planes))
    titles = [measure.title for measure in MEASURES]
    lines = [
        f"| ratio to HAProxy (95 %) | {' | '.join(titles)} |",
        "|---" * (len(titles) + 1) + "|",
    ]
    lines += [
        f"| {name} | {' | '.join(_ratio(results.get(title, {}), name) for title in titles)} |"
        for name in names
        if name != REFERENCE
    ]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """What it was measured on, in one line."""
    return f"{os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}"


def _cell(found: list[Result]) -> str:
    if not found:
        return "-"
    value, rate = median(each.value for each in found), median(each.rate for each in found)
    return f"{value:,.0f} ({_rate(rate)})"


def _rate(rate: float) -> str:
    giga = 1e9
    return f"{rate / giga:.2f} GB/s" if rate > giga / 20 else f"{rate:,.0f}/s"


def _latency(found: list[Result]) -> str:
    if not found:
        return "-"
    p50, p99 = (median(getattr(each, key) for each in found) for key in ("p50_us", "p99_us"))
    return f"{p50:,.0f} / {p99:,.0f}"


def _ratio(planes: dict[str, list[Result]], whose: str) -> str:
    ours, theirs = planes.get(whose, []), planes.get(REFERENCE, [])
    if not ours or len(ours) != len(theirs):
        return "-"
    return str(paired_ratio([each.value for each in ours], [each.value for each in theirs]))

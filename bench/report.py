"""The tables: goals and ratios beside HAProxy and plain forwarding, figures for orientation."""

from __future__ import annotations

from itertools import chain
from statistics import median
from typing import TYPE_CHECKING, Final

from bench.measures import HAPROXY, MEASURES, NEW_CONNECTION, ONE_AT_A_TIME, TRAFFIC
from bench.ratio import ENOUGH_PAIRS, paired_difference, paired_ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bench.macro import Findings, Results
    from bench.measure import Result
    from bench.measures import Measure, Memory
    from bench.ratio import Ratio

OURS: Final = "egressproxy"
FORWARDING: Final = "no proxy"
_CAVEATS: Final = (
    "Absolute figures drift with the machine; ratios are of pairs, each measured within seconds,"
    " and a goal is met when the upper end of the 95 % interval is.",
    "Two HAProxies run: with splice-auto, and with splice-response, which costs it a little a"
    " connection and saves it a third in bulk. Each measure has the one that is the better in it as"
    " its reference: the latter in bulk, the former in all others.",
    "Fewer than six pairs: the interval is the range of all, and covers less than 95 %.",
    "Client, hub and server share one machine; veth checksums nothing and has no interrupts of its"
    " own, so that a network card's cost comes on top for everybody, forwarding included.",
    "Where nothing is proxied the load's core is the limit of connections/s, not the hub's: CPU a"
    " connection is the figure to compare.",
    "nginx and sniproxy are led to the server by name and need not ask for the original"
    " destination; neither they nor HAProxy, Squid, Envoy and mitmproxy write a log here, whereas"
    " egressproxy records every connection and counts it.",
)


def document(findings: Findings, machine: str, versions: Mapping[str, str]) -> str:
    """All tables of a run in Markdown."""
    results = findings.results
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts = (
        f"{machine}.\n{told}.",
        "### egressproxy beside HAProxy, and its goals",
        goals(results),
        "### Ratio to HAProxy",
        ratios(results, {measure.title: measure.reference for measure in MEASURES}),
        "### Ratio to plain forwarding",
        ratios(results, {measure.title: FORWARDING for measure in TRAFFIC}),
        "### Connections/s and latency",
        latency(results),
        "### What to bear in mind",
        "\n".join(f"- {each}" for each in (*findings.notes, *_CAVEATS)),
    )
    return "\n\n".join(parts) + "\n"


def goals(results: Results) -> str:
    """A line a measure: medians, our ratio to HAProxy, the goal and whether it is met."""
    rows = [
        row
        for measure in MEASURES
        if (planes := results.get(measure.title))
        for row in _goal_rows(measure, planes)
    ]
    head = ("measure", FORWARDING, HAPROXY, OURS, "ratio (95 %, pairs)", "goal", "")
    return _table(head, rows)


def _goal_rows(
    measure: Measure | Memory, planes: Mapping[str, list[Result]]
) -> Iterator[Sequence[str]]:
    medians = [_cell(planes.get(name, [])) for name in (FORWARDING, measure.reference, OURS)]
    ratio = str(ratio_of(planes, OURS, measure.reference) or "-")
    title = f"{measure.title} ({measure.unit})"
    yield title, *medians, ratio, _goal(measure), _met(measure, planes)
    if measure.below and (other := ratio_of(planes, OURS, measure.below)):
        beside = f"the same beside {measure.below}"
        yield beside, "", "", "", str(other), "ratio 1.00", _met_by(other, 1.0)


def ratios(results: Results, references: Mapping[str, str]) -> str:
    """A line a data plane: its ratio in every measure to whoever is the reference of that one."""
    known = [(title, each) for title, each in references.items() if each in results.get(title, {})]
    return _table(
        ("", *(title for title, _ in known)),
        (
            (name, *(_cell_of_ratio(results[title], name, each) for title, each in known))
            for name in _names(results)
            if any(name != each for _, each in known)
        ),
    )


def _cell_of_ratio(planes: Mapping[str, list[Result]], whose: str, reference: str) -> str:
    return "1" if whose == reference else str(ratio_of(planes, whose, reference) or "-")


def latency(results: Results) -> str:
    """A line a data plane: connections/s, latency of one transaction, what is added to it."""
    many, one = results.get(NEW_CONNECTION, {}), results.get(ONE_AT_A_TIME, {})
    heads = ("connections/s", "p50 (us)", "p99 (us)", "added p50 (us)", "added p99 (us)")
    return _table(
        ("", *heads),
        (
            (
                name,
                f"{_median(many[name], 'rate'):,.0f}" if name in many else "-",
                *(f"{_median(one[name], key):,.0f}" for key in _PERCENTILES),
                *(_added(one, name, key) for key in _PERCENTILES),
            )
            for name in _names(results)
            if name in one
        ),
    )


_PERCENTILES: Final = ("p50_us", "p99_us")


def ratio_of(planes: Mapping[str, list[Result]], whose: str, reference: str) -> Ratio | None:
    """Of the repeats that both took part in, which are the first ones; None if one did not."""
    ours, theirs = planes.get(whose, []), planes.get(reference, [])
    pairs = min(len(ours), len(theirs))
    if not pairs:
        return None
    return paired_ratio(_values(ours[:pairs]), _values(theirs[:pairs]))


def _added(planes: Mapping[str, list[Result]], whose: str, key: str) -> str:
    ours, theirs = planes[whose], planes.get(FORWARDING, [])
    pairs = min(len(ours), len(theirs))
    if whose == FORWARDING or not pairs:
        return "-"
    values = [[float(getattr(each, key)) for each in side[:pairs]] for side in (ours, theirs)]
    return str(paired_difference(*values))


def _goal(measure: Measure | Memory) -> str:
    goal = "" if measure.goal is None else f"ratio {measure.goal:.2f}"
    most = "" if measure.most is None else f"{measure.most:,.0f} {measure.unit}"
    return goal or most or "-"


def _met(measure: Measure | Memory, planes: Mapping[str, list[Result]]) -> str:
    ratio, ours = ratio_of(planes, OURS, measure.reference), planes.get(OURS, [])
    if measure.goal is not None and ratio is not None:
        return _met_by(ratio, measure.goal)
    if measure.most is not None and ours:
        return _verdict(_median(ours, "value"), max(_values(ours)), measure.most)
    return ""


def _met_by(ratio: Ratio, goal: float) -> str:
    if ratio.pairs < ENOUGH_PAIRS:
        return "too few pairs to say"
    return _verdict(ratio.median, ratio.high, goal)


def _verdict(middle: float, high: float, goal: float) -> str:
    if high <= goal:
        return "met"
    return "met by the median only" if middle <= goal else "missed"


def _names(results: Results) -> list[str]:
    """Every data plane, in the order in which they were measured."""
    return list(dict.fromkeys(chain.from_iterable(results.values())))


def _values(found: Iterable[Result]) -> list[float]:
    return [each.value for each in found]


def _median(found: Iterable[Result], key: str) -> float:
    return median(float(getattr(each, key)) for each in found)


def _cell(found: list[Result]) -> str:
    return f"{_median(found, 'value'):,.0f}{_rate(_median(found, 'rate'))}" if found else "-"


def _rate(rate: float) -> str:
    if not rate:
        return ""
    giga = 1e9
    return f" ({rate / giga:.2f} GB/s)" if rate > giga / 20 else f" ({rate:,.0f}/s)"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(_lines(head, rows))


def _lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"

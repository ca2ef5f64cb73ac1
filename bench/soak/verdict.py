"""What a soak has shown: each figure beside its limit, as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bench.soak.samples import Held, series
from bench.soak.trend import trend

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.soak.samples import Sample

GROWTH: Final = {"memory": 8e6, "files": 300.0, "pipes": 300.0, "threads": 1.0, "tasks": 60.0}
"""Most that the upper end of a slope's interval may be, an hour; octets for memory.

It is what ten minutes can tell: a worker lets young garbage lie up to a megabyte
(``service.garbage``), and connections that come and go are noise in the descriptors. A single one
that never comes back is found by the comparison of end and start.
"""
SPARE_PIPES: Final = 128
"""Descriptors of pipes that a worker keeps open for later (``kernel.splice.PipePool``)."""
_REVIEW_LOST: Final = "egressproxy_review_dropped_records_total"
_NAMES: Final = {"memory": "private memory", "files": "files but pipes"}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table."""

    what: str
    value: str
    limit: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """The metrics just before the load was taken off, and after all had closed."""

    under_load: dict[str, float]
    at_the_end: dict[str, float]


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a soak has counted beside the samples."""

    idle_asked: int
    idle_standing: int
    tally: dict[str, Any]
    reloads: list[tuple[str, str]]
    """Outcomes: what was expected, what came."""
    seen: Seen
    records: int
    """Flows in the record log; a folded record counts for all that it stands for."""


def growth(samples: Sequence[Sample], block_s: float) -> Iterator[Check]:
    """The slope of every figure of every process."""
    for role in samples[0].held:
        for key in Held.__slots__:
            line = trend(series(samples, role, key), block_s)
            limit = GROWTH.get(key)
            scale, unit = (1e-3, "kB/h") if key == "memory" else (1.0, "/h")
            value = (
                f"{line.slope * scale:+,.0f} ({line.low * scale:,.0f} to {line.high * scale:,.0f})"
            )
            yield Check(
                f"{role}: growth of {_NAMES.get(key, key)}",
                f"{value} {unit}" if line.blocks > 3 else "too short a run",
                "" if limit is None else f"{limit * scale:,.0f} {unit}",
                limit is None or math.isnan(line.high) or line.high <= limit,
            )


def returned(start: Sample, end: Sample) -> Iterator[Check]:
    """Whether all came back after the last tunnel had closed."""
    yield Check("open flows at the end", str(end.flows), "0", end.flows == 0)
    for role, before in start.held.items():
        after = end.held[role]
        for key, more in (("files", 0), ("pipes", SPARE_PIPES), ("threads", 0), ("tasks", 0)):
            was, came = getattr(before, key), getattr(after, key)
            limit = f"{was}" if not more else f"{was} + {more} spare"
            yield Check(f"{role}: {key} at the end", str(came), limit, came <= was + more)
        yield Check(
            f"{role}: private memory at the end",
            f"{after.memory / 1e6:.1f} MB",
            f"(start {before.memory / 1e6:.1f} MB)",
            ok=True,
        )


def traffic(facts: Facts) -> Iterator[Check]:
    """Whether every tunnel and every octet was as it should be."""
    idle = facts.idle_standing == facts.idle_asked
    yield Check("idle tunnels standing", f"{facts.idle_standing:,}", f"{facts.idle_asked:,}", idle)
    yield Check("octets echoed and compared", f"{facts.tally['octets']:,}", "", ok=True)
    faults = facts.tally["faults"]
    yield Check("tunnels broken, octets wrong", str(faults), "0", faults == 0)
    done = sum(facts.tally["done"].values())
    yield Check("connections come and gone", f"{done:,}", "", ok=True)
    wrong = sum(expected != came for expected, came in facts.reloads)
    refused = sum(expected == "refused" for expected, _ in facts.reloads)
    text = f"{len(facts.reloads)}, {refused} of them bad policies"
    yield Check("reloads", text, "", ok=True)
    yield Check("reloads that went otherwise than expected", str(wrong), "0", wrong == 0)


def records(facts: Facts) -> Iterator[Check]:
    """Whether every flow was recorded, and nobody died."""
    end = facts.seen.at_the_end
    # A revoked flow was counted when it was allowed, too, and has one record.
    revoked = int(end["egressproxy_denies_total revoked"])
    flows = int(end["egressproxy_flows_total"]) - revoked
    yield Check(
        "flows in the record log", f"{facts.records:,}", f"{flows:,}", facts.records == flows
    )
    yield Check("of them ended by a reload", f"{revoked:,}", "", ok=True)
    dropped = int(end["egressproxy_log_dropped_records_total"])
    yield Check("records that the log lost", str(dropped), "0", dropped == 0)
    lost = [int(each[_REVIEW_LOST]) for each in (facts.seen.under_load, end)]
    yield Check("records that the review store lost under load", str(lost[0]), "0", lost[0] == 0)
    # Nobody waits for the recorder: more than its pipe holds at once is in the log alone.
    at_once = f"{lost[1] - lost[0]:,}"
    yield Check("the same when all tunnels closed at once", at_once, "", ok=True)
    died = int(end["egressproxy_worker_restarts_total"])
    died += int(end["egressproxy_recorder_restarts_total"])
    yield Check("processes that died", str(died), "0", died == 0)
    stall = end["egressproxy_engine_longest_stall_seconds"]
    yield Check("longest time an engine was away from its flows", f"{stall * 1e3:.0f} ms", "", True)


def table(checks: Iterable[Check]) -> str:
    """A Markdown table; a line that failed says so."""
    lines = ["| | found | limit | |", "|---|---|---|---|"]
    for check in checks:
        verdict = "FAILED" if not check.ok else "ok" if check.limit else ""
        lines.append(f"| {check.what} | {check.value} | {check.limit} | {verdict} |")
    return "\n".join(lines) + "\n"

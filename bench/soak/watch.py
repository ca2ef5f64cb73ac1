"""The course of a soak: load put on, time passing with samples and reloads, load taken off."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from bench.soak.policies import is_bad, put_policy
from bench.soak.samples import Sample, held, metrics, roles
from bench.soak.verdict import Facts, Seen

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from bench.soak.stage import Stage

SAMPLE_S: Final = 5.0
RELOAD_S: Final = 20.0
PAGES_S: Final = 30.0
PAGES: Final = ("/review", "/review/flows", "/review/denies", "/policy")
WARM_LOOKS: Final = 4
"""Pages, statements and templates are kept once they have been used."""
_SETTLE_S: Final = 90.0
_POLL_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be held, and how long; ``open_files`` is what one process may have."""

    minutes: float
    idle: int
    busy: int
    open_files: int

    @property
    def workers(self) -> int:
        """As few as the file limit permits: two descriptors a tunnel, unevenly dealt."""
        return max(2, -(-2 * (self.idle + self.busy) // (self.open_files * 3 // 4)))

    @property
    def warm_up_s(self) -> float:
        """What is left out of the slopes: allocators take some minutes to find their size."""
        return min(300.0, self.minutes * 60 / 3)

    @property
    def block_s(self) -> float:
        """One time through all kinds of policies."""
        return min(6 * RELOAD_S, (self.minutes * 60 - self.warm_up_s) / 10)

    def __str__(self) -> str:
        return (
            f"{self.idle:,} idle and {self.busy} busy tunnels for {self.minutes:g} minutes,"
            f" {self.workers} workers (a process may have {self.open_files:,} open files);"
            f" a reload every {RELOAD_S:.0f} s, every third policy a bad one"
        )


@dataclass(frozen=True, slots=True)
class Course:
    """What was seen: before the load, under it, after it."""

    start: Sample
    samples: list[Sample]
    end: Sample
    facts: Facts

    def settled(self, warm_up_s: float) -> list[Sample]:
        """The samples after the warm-up."""
        return [each for each in self.samples if each.at >= warm_up_s]

    def with_records(self, folder: Path) -> Course:
        """The same with the number of flows in the record log, once the service has ended."""
        lines = [line for path in folder.iterdir() for line in path.read_text().splitlines()]
        count = sum(json.loads(line).get("count", 1) for line in lines)
        return replace(self, facts=replace(self.facts, records=count))


@dataclass(slots=True)
class _Watch:
    """Takes samples and reloads in turn."""

    stage: Stage
    began: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)
    reloads: list[tuple[str, str]] = field(default_factory=list)
    seen: dict[str, float] = field(default_factory=dict)

    def sample(self) -> Sample:
        self.seen = metrics(self.stage.admin.get("/metrics"))
        return Sample(
            at=time.monotonic() - self.began,
            flows=int(self.seen["egressproxy_active_flows"]),
            held={
                role: held(pid, self.stage.probes)
                for role, pid in roles(self.stage.peer.pids).items()
            },
        )

    def reload(self) -> None:
        turn = len(self.reloads)
        put_policy(self.stage.directory, turn)
        outcome = self.stage.admin.reload()["outcome"]
        # The watched file may have been quicker than we: then our own request changed nothing.
        came = "applied" if outcome == "unchanged" else outcome
        self.reloads.append(("refused" if is_bad(turn) else "applied", came))

    def look(self) -> None:
        for page in PAGES:
            self.stage.admin.get(page)

    def pass_time(self, seconds: float) -> None:
        """Sample, reload and look, each at its pace."""
        duties = ((self._keep, SAMPLE_S), (self.reload, RELOAD_S), (self.look, PAGES_S))
        due = [time.monotonic()] * len(duties)
        ends = due[0] + seconds
        while (now := time.monotonic()) < ends:
            for number, (duty, pace_s) in enumerate(duties):
                if due[number] <= now:
                    due[number] += pace_s
                    duty()
            time.sleep(max(0.0, min(ends, *due) - time.monotonic()))

    def _keep(self) -> None:
        self.samples.append(self.sample())
        last = self.samples[-1]
        memory = sum(one.memory for one in last.held.values())
        print(f"{last.at:6.0f} s  {last.flows:6,} flows  {memory / 1e6:7.1f} MB", flush=True)

    def settled(self, start: Sample | None) -> Sample:
        """The first sample without flows, with no more files than at the start; or the last."""
        ends = time.monotonic() + _SETTLE_S
        while True:
            found = self.sample()
            back = start is None or all(
                found.held[role].files <= one.files for role, one in start.held.items()
            )
            if (not found.flows and back) or time.monotonic() > ends:
                return found
            time.sleep(_POLL_S)


def hold(stage: Stage, plan: Plan) -> Course:
    """Warm the service up, put the load on, let time pass, take the load off."""
    watch = _Watch(stage)
    stage.bulk()
    for _ in range(WARM_LOOKS):
        watch.look()
        watch.reload()
    start = watch.settled(None)
    with stage.idle(plan.idle, plan.open_files), stage.traffic(plan.busy) as traffic:
        watch.began = time.monotonic()
        watch.pass_time(plan.minutes * 60)
        standing = stage.standing()
        held_metrics = watch.seen
        tally = _tally(traffic)
    end = watch.settled(start)
    seen = Seen(under_load=held_metrics, at_the_end=watch.seen)
    facts = Facts(plan.idle, standing, tally, watch.reloads, seen, records=0)
    return Course(start, watch.samples, end, facts)


def _tally(traffic: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Let the busy tunnels come to their end."""
    told, _ = traffic.communicate(timeout=_SETTLE_S)
    found: dict[str, Any] = json.loads(told)
    return found

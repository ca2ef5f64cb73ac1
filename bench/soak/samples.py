"""What each process of the service holds, as the kernel and the process itself tell it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable

PROC: Final = Path("/proc")
WORKER: Final = "egressproxy.service.worker"
RECORDER: Final = "egressproxy.service.recorder"


@dataclass(frozen=True, slots=True)
class Held:
    """Of one process: private memory in octets, descriptors, threads, asyncio tasks, blocks.

    ``pipes`` are descriptors of pipes, of which the relay keeps some for later; ``files`` are all
    others. Tasks and blocks (of the interpreter's allocator) are 0 before its probe has told them.
    """

    memory: int
    files: int
    pipes: int
    threads: int
    tasks: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Sample:
    """All processes by their role, and the open flows, ``at`` seconds after the start."""

    at: float
    flows: int
    held: dict[str, Held]


def roles(pids: Iterable[int], proc: Path = PROC) -> dict[str, int]:
    """Each process of the service by what it is: ``supervisor``, ``worker 1``, …, ``recorder``."""
    found: dict[str, int] = {}
    for pid in pids:
        argv = (proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
        if WORKER in argv:
            found[f"worker {1 + sum(role.startswith('worker') for role in found)}"] = pid
        else:
            found["recorder" if RECORDER in argv else "supervisor"] = pid
    return found


def held(pid: int, probes: Path, proc: Path = PROC) -> Held:
    """What a process holds now.

    Raises:
        OSError: there is no such process.
    """
    own = proc / str(pid)
    status = dict(line.split(":", 1) for line in (own / "status").read_text().splitlines())
    tasks, blocks = 0, 0
    with suppress(FileNotFoundError):
        tasks, blocks = map(int, (probes / str(pid)).read_text().split())
    files, pipes = _descriptors(own / "fd")
    return Held(
        memory=private_octets((own / "smaps_rollup").read_text()),
        files=files,
        pipes=pipes,
        threads=int(status["Threads"]),
        tasks=tasks,
        blocks=blocks,
    )


def _descriptors(folder: Path) -> tuple[int, int]:
    """Those that are no pipes, and those that are."""
    files = pipes = 0
    for entry in folder.iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if str(entry.readlink()).startswith("pipe:"):
                pipes += 1
            else:
                files += 1
    return files, pipes


def private_octets(smaps: str) -> int:
    """The private pages of a ``smaps_rollup`` (proc(5))."""
    rows = [line.split() for line in smaps.splitlines() if line.startswith("Private_")]
    return sum(int(row[1]) for row in rows) * 1024


def metrics(text: str) -> dict[str, float]:
    """The samples of a Prometheus text by name, those with labels added up; by reason as well.

    ``egressproxy_denies_total revoked`` is what all planes have of one reason together.
    """
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            keys = [sample.name]
            if reason := sample.labels.get("reason"):
                keys.append(f"{sample.name} {reason}")
            for key in keys:
                found[key] = found.get(key, 0.0) + sample.value
    return found


def as_json(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """Samples as JSON has them, for the plot."""
    return [
        {
            "at": round(each.at, 1),
            "flows": each.flows,
            "held": {role: asdict(one) for role, one in each.held.items()},
        }
        for each in samples
    ]


def series(samples: Iterable[Sample], role: str, key: str) -> list[tuple[float, float]]:
    """Time and value of one figure of one process."""
    return [(each.at, float(getattr(each.held[role], key))) for each in samples]

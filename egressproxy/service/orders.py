"""The orders a supervisor gives to one worker, each a short conversation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from egressproxy.errors import ServiceError
from egressproxy.service.messages import (
    Abort,
    Commit,
    Committed,
    Drain,
    Prepare,
    Reopen,
    Status,
    StatusReport,
)

if TYPE_CHECKING:
    from egressproxy.service.generation import Generation
    from egressproxy.service.process import WorkerProcess


async def prepare(process: WorkerProcess, patience_s: float, *, generation: Generation) -> None:
    """Let a worker build a generation's ruleset beside the one it serves."""
    await process.ask(
        partial(Prepare, generation=generation.number),
        timeout_s=patience_s,
        descriptors=generation.descriptors,
    )


async def commit(process: WorkerProcess, patience_s: float, *, generation: Generation) -> Committed:
    """Put a prepared generation in force."""
    answer = await process.ask(partial(Commit, generation=generation.number), timeout_s=patience_s)
    if not isinstance(answer, Committed):
        raise _unexpected(process, answer)
    return answer


async def abort(process: WorkerProcess, patience_s: float, *, generation: Generation) -> None:
    """Let a worker forget a generation it prepared, or could not prepare."""
    await process.ask(partial(Abort, generation=generation.number), timeout_s=patience_s)


async def install(process: WorkerProcess, patience_s: float, *, generation: Generation) -> None:
    """Give a new worker its first policy; it accepts flows from then on."""
    await prepare(process, patience_s, generation=generation)
    await commit(process, patience_s, generation=generation)


async def drain(process: WorkerProcess, patience_s: float) -> None:
    """Let a worker take no new flow, and end after its last one."""
    await process.ask(Drain, timeout_s=patience_s)


async def reopen(process: WorkerProcess, patience_s: float) -> None:
    """Let a worker open its record file anew."""
    await process.ask(Reopen, timeout_s=patience_s)


async def status(process: WorkerProcess, patience_s: float) -> StatusReport:
    """What a worker says of itself."""
    answer = await process.ask(Status, timeout_s=patience_s)
    if not isinstance(answer, StatusReport):
        raise _unexpected(process, answer)
    return answer


def _unexpected(process: WorkerProcess, answer: object) -> ServiceError:
    return ServiceError(f"worker {process.index} answered {type(answer).__name__} out of turn")

"""One worker process: asked, refused, silent, ended."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from egressproxy.errors import ServiceError
from egressproxy.service.messages import Abort, Commit, Done, Prepare, Reopen, Status, StatusReport
from egressproxy.service.process import (
    WorkerGoneError,
    WorkerProcess,
    WorkerTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0


@asynccontextmanager
async def worker() -> AsyncIterator[WorkerProcess]:
    process = WorkerProcess(0)
    try:
        yield process
    finally:
        process.kill()
        await process.exited


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_an_idle_worker_answers() -> None:
    async with worker() as process:
        answer = await process.ask(Status, timeout_s=PATIENCE_S)
        assert isinstance(answer, StatusReport)
        assert (answer.generation, answer.active) == (0, 0)
        assert isinstance(
            await process.ask(partial(Abort, generation=1), timeout_s=PATIENCE_S), Done
        )


async def test_what_it_cannot_do_is_refused_and_it_lives_on() -> None:
    async with worker() as process:
        with pytest.raises(ServiceError, match="not prepared"):
            await process.ask(partial(Commit, generation=7), timeout_s=PATIENCE_S)
        with pytest.raises(ServiceError, match="not booted"):
            await process.ask(Reopen, timeout_s=PATIENCE_S)
        garbage = os.memfd_create("garbage")
        os.write(garbage, b"\x04\0\0\0oops")
        with pytest.raises(ServiceError, match="worker 0"):
            await process.ask(
                partial(Prepare, generation=1), timeout_s=PATIENCE_S, descriptors=[garbage]
            )
        os.close(garbage)
        assert isinstance(await process.ask(Status, timeout_s=PATIENCE_S), StatusReport)


async def test_a_silent_worker_times_out() -> None:
    async with worker() as process:
        await process.ask(Status, timeout_s=PATIENCE_S)
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(WorkerTimeoutError, match=r"within 0\.1 s"):
            await process.ask(Status, timeout_s=0.1)


async def test_an_answer_that_comes_too_late_is_no_ones() -> None:
    async with worker() as process:
        await process.ask(Status, timeout_s=PATIENCE_S)
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(WorkerTimeoutError):
            await process.ask(Status, timeout_s=0.05)
        os.kill(process.pid, signal.SIGCONT)
        with pytest.raises(ServiceError, match="not booted"):
            await process.ask(Reopen, timeout_s=PATIENCE_S)


async def test_a_worker_that_dies_while_asked() -> None:
    async with worker() as process:
        os.kill(process.pid, signal.SIGSTOP)
        process.kill()
        with pytest.raises(WorkerGoneError):
            await process.ask(Status, timeout_s=PATIENCE_S)
        assert await process.exited == -signal.SIGKILL
        with pytest.raises(WorkerGoneError):
            await process.ask(Status, timeout_s=PATIENCE_S)


async def test_end() -> None:
    before = open_descriptors()
    async with worker() as process:
        await process.ask(Status, timeout_s=PATIENCE_S)
        process.end()
        assert await process.exited == 0
    assert open_descriptors() == before

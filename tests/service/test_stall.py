"""A stall of the loop is seen, whether by a tick that comes late or by the work running now."""

from __future__ import annotations

import asyncio
import time

import pytest

from egressproxy.service.stall import StallProbe

pytestmark = pytest.mark.anyio


def block(seconds: float) -> None:
    time.sleep(seconds)  # the loop's thread is what must stand still


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_late_tick_is_noted() -> None:
    probe = StallProbe(asyncio.get_running_loop())
    probe.start()
    await asyncio.sleep(0.005)
    block(0.05)
    await asyncio.sleep(0.005)
    assert 0.04 < probe.stop() < 5


async def test_work_that_runs_now_counts() -> None:
    clock = Clock()
    probe = StallProbe(asyncio.get_running_loop(), clock)
    probe.start()
    clock.now += 0.5
    assert probe.stop() == pytest.approx(0.499)


async def test_each_start_begins_anew() -> None:
    clock = Clock()
    probe = StallProbe(asyncio.get_running_loop(), clock)
    assert probe.stop() == 0
    probe.start()
    clock.now += 0.5
    probe.start()
    assert probe.stop() == 0

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from egressproxy.doctor.clock import ClockState, check_clock, read_clock
from egressproxy.doctor.plan import Plan
from tests.doctor.machines import NOW, levels, machine
from tests.policy.building import policy

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("state", "level"),
    [
        (ClockState(True, 0.002), "ok"),
        (ClockState(True, 5.0), "warn"),
        (ClockState(False, 0.0), "warn"),
        (None, "warn"),
    ],
    ids=["right", "inexact", "unsynchronised", "unknown"],
)
def test_clock(state: ClockState | None, level: str, tmp_path: Path) -> None:
    assert levels(check_clock(machine(tmp_path, {}), Plan(), state)) == {"clock": level}


@pytest.mark.parametrize(("ahead_s", "level"), [(-5, "ok"), (200, "ok"), (4000, "fail")])
def test_a_policy_of_the_future(ahead_s: int, level: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.touch()
    os.utime(file, (NOW, NOW + ahead_s))
    plan = Plan(policy=replace(policy(), files=(file, tmp_path / "gone")))
    found = check_clock(machine(tmp_path, {}), plan, ClockState(True, 0.0))
    assert levels(found) == {"clock": level}


def test_this_kernel() -> None:
    state = read_clock()
    assert state is None or state.max_error_s >= 0

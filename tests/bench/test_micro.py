"""The tables of the micro benchmarks, from canned results."""

from __future__ import annotations

import pytest

from bench.micro import Found, cost_table, duration, goals, time_table, times_of

ROUNDS = 21


def costs(hundred_thousand: float, million: float) -> dict[str, dict[str, list[float]]]:
    """Of one kind of name, 0.2 us at 60 names."""
    by_size = {"60": 0.2, "10000": 0.2, "100000": hundred_thousand, "1000000": million}
    return {"seen before": {size: [us] * ROUNDS for size, us in by_size.items()}}


def test_times_are_of_one_step() -> None:
    report = {
        "benchmarks": [
            {
                "group": "record",
                "name": "test_record_write",
                "stats": {"median": 2e-4},
                "extra_info": {"steps": 100},
            },
            {
                "group": "decide",
                "name": "test_decide_new[1,000 names]",
                "stats": {"median": 3e-6},
                "extra_info": {},
            },
        ]
    }
    assert times_of(report) == {
        "record": {"record write": pytest.approx(2e-6)},
        "decide": {"decide new (1,000 names)": 3e-6},
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.5, "2.5 s"), (0.0123456, "12.3 ms"), (4.81e-6, "4.81 us"), (2.5e-8, "25 ns")],
)
def test_durations_have_three_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_times_stand_side_by_side() -> None:
    found = {
        name: Found({"policy": {"load": seconds}}, {})
        for name, seconds in (("compiled", 0.5), ("interpreted", 1.0))
    }
    assert time_table(found).splitlines() == [
        "| median | compiled | interpreted |",
        "|---|---|---|",
        "| policy: load | 500 ms | 1 s |",
    ]


def test_costs_are_ratios_to_the_smallest_policy() -> None:
    table = cost_table({"compiled": Found({}, costs(0.3, 0.4))})
    line = next(line for line in table.splitlines() if line.startswith("| compiled"))
    assert "| 0.20 | 0.20 | 0.30 | 0.40 | 1.00 (1.00-1.00, n=21) |" in line
    assert "| 1.50 (1.50-1.50, n=21) | 2.00 (2.00-2.00, n=21) |" in line


@pytest.mark.parametrize(
    ("hundred_thousand", "million", "verdicts"),
    [
        (0.21, 0.49, ("met", "met")),
        (0.22, 0.49, ("not met", "met")),
        (0.2, 0.51, ("met", "not met")),
    ],
)
def test_goals(hundred_thousand: float, million: float, verdicts: tuple[str, str]) -> None:
    (line,) = goals({"compiled": Found({}, costs(hundred_thousand, million))})
    ratio, many = line.split(";")
    assert (ratio.rpartition(": ")[2], many.rpartition(": ")[2]) == verdicts


def test_a_goal_is_held_against_the_upper_end_of_the_interval() -> None:
    noisy = costs(0.2, 0.2)
    noisy["seen before"]["100000"][:8] = [0.4] * 8
    (line,) = goals({"compiled": Found({}, noisy)})
    assert "at most 1.05: not met" in line

"""Cost against number of names: what is asked for, and the table from canned results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.decide_cost import flow, ruleset_of
from bench.measure import Result
from bench.rules import ASKED, SIZES, Costs, asked_of, table

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_790_000_000.0


@pytest.mark.parametrize("size", [60, 10_000])
def test_what_is_asked_for_is_allowed_and_never_twice_the_same(size: int, tmp_path: Path) -> None:
    asked = asked_of(size)
    ruleset = ruleset_of(size, tmp_path)
    assert len(set(asked)) == ASKED
    assert all(ruleset.decide(flow(name), NOW).is_allow for name in asked)


def results(*values: float) -> list[Result]:
    return [Result(value, 1000.0) for value in values]


def test_ratios_are_of_one_data_plane_to_itself() -> None:
    costs = Costs(
        connections={"Squid": {60: results(100, 200, 300), 100_000: results(110, 220, 330)}},
        memory={"Squid": {60: 2_000_000, 100_000: 9_000_000}},
        notes=["Squid at 10,000 names: no"],
    )
    lines = table(costs).splitlines()
    assert lines[2] == "| Squid | 200 | - | 220 | - | 1.10 (1.10-1.10, n=3) | 9 / 2 |"
    assert lines[-1] == "- Squid at 10,000 names: no"
    assert lines[0].count("|") == lines[2].count("|")


def test_a_repeat_that_is_missing_makes_no_pairs() -> None:
    uneven = {60: results(100, 200), 10_000: results(100), 100_000: results(100, 200)}
    line = table(Costs(connections={"Squid": uneven})).splitlines()[2]
    assert line == "| Squid | 150 | 100 | 150 | - | 1.00 (1.00-1.00, n=2) | - |"


@pytest.mark.parametrize(("large", "verdict"), [(104, "met"), (106, "not met")])
def test_the_goal_is_ours_alone(large: float, verdict: str) -> None:
    def at(name: str) -> str:
        found = {60: results(*[100] * 6), 100_000: results(*[100] * 5, large)}
        return table(Costs(connections={name: found})).splitlines()[-1]

    assert at("egressproxy").endswith(f"of 60: {verdict}")
    assert at("Squid").startswith("| Squid")


def test_the_smallest_size_is_the_first() -> None:
    assert list(SIZES) == sorted(SIZES)

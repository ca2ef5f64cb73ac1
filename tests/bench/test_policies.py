"""The generated policies: as many names as asked for, and what they allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.decide_cost import Kind, flow, measure, new_flows, ruleset_of
from bench.policies import below, exact_name, names

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_790_000_000.0


@pytest.mark.parametrize("size", [0, 1, 60, 61, 10_000])
def test_no_name_comes_twice(size: int) -> None:
    assert len(set(names(size))) == size


def test_what_a_policy_allows(tmp_path: Path) -> None:
    ruleset = ruleset_of(60, tmp_path)
    cases = {
        exact_name(29): True,
        exact_name(30): False,
        below(29, "a"): True,
        below(30, "a"): False,
    }
    assert {name: ruleset.decide(flow(name), NOW).is_allow for name in cases} == cases


@pytest.mark.parametrize("kind", [Kind.NEW_ALLOWED, Kind.NEW_DENIED])
def test_new_names_are_never_asked_twice(kind: Kind, tmp_path: Path) -> None:
    ruleset = ruleset_of(60, tmp_path)
    numbers = iter(range(1000))
    flows = [*new_flows(kind, 60, numbers, 500), *new_flows(kind, 60, numbers, 500)]
    assert len({each.name for each in flows}) == 1000
    allowed = {ruleset.decide(each, NOW).is_allow for each in flows}
    assert allowed == {kind is Kind.NEW_ALLOWED}


def test_every_size_is_measured_in_every_round() -> None:
    costs = measure((60, 100), 2)
    rounds = {(kind, size): len(found) for kind, by in costs.items() for size, found in by.items()}
    assert rounds == {(kind, size): 2 for kind in Kind for size in ("60", "100")}

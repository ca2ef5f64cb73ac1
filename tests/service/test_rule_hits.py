from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from egressproxy.service.rule_hits import RuleHits


def test_only_what_came_since() -> None:
    hits = RuleHits()
    assert hits.grown({"a": 100, "b": 0}) == {}, "from before this service"
    assert hits.grown({"a": 103, "b": 0}) == {"a": 3}
    assert hits.grown({"a": 103, "b": 2, "new": 5}) == {"b": 2, "new": 5}
    assert hits.grown({"a": 4, "b": 2}) == {"a": 4}, "the table was made anew"
    assert hits.grown({}) == {}
    assert hits.grown({"a": 7}) == {"a": 7}, "the rule was gone meanwhile"


@given(st.lists(st.integers(0, 1000), max_size=30))
def test_the_sum_is_what_the_counter_shows(steps: list[int]) -> None:
    hits, total, noted = RuleHits(), 0, 0
    hits.grown({"r": 0})
    for step in steps:
        total += step
        noted += hits.grown({"r": total}).get("r", 0)
    assert noted == total

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.service import rule_hits as module
from egressproxy.service.rule_hits import RuleHits, note_rule_hits

if TYPE_CHECKING:
    from egressproxy.service.recorder_messages import RuleHitsNote


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


@pytest.mark.anyio
async def test_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.001)
    shown = {"r": 5}
    notes: list[RuleHitsNote] = []
    arrived = asyncio.Event()

    def note(each: RuleHitsNote) -> None:
        notes.append(each)
        arrived.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(note_rule_hits(lambda: shown, note))
        await asyncio.sleep(0)
        shown["r"] = 7
        async with asyncio.timeout(10):
            await arrived.wait()
        shown["r"] = 8
        task.cancel()
    assert [dict(each.packets) for each in notes] == [{"r": 2}, {"r": 1}]

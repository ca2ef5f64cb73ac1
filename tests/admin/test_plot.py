"""A plot's geometry: nothing is lost, nothing stands outside, axes have round numbers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.admin.plot import MAX_BARS, NARROW, WIDE, plot
from egressproxy.review.model import Point

KINDS = ("harmless", "unknown", "suspicious")
NOON = 1_790_078_400.0


def points(counts: dict[int, dict[str, int]], step_s: int) -> list[Point]:
    return [
        Point(NOON + place * step_s, sum(parts.values()), tuple(parts.items()))
        for place, parts in counts.items()
    ]


def test_bars_stand_on_each_other_the_last_kind_on_top() -> None:
    drawn = plot(
        points({1: {"suspicious": 2, "harmless": 6}}, 3600),
        since=NOON,
        until=NOON + 3 * 3600,
        step_s=3600,
        kinds=KINDS,
    )
    assert [bar.count for bar in drawn.bars] == [0, 8, 0]
    lower, upper = drawn.bars[1].parts
    assert (lower.kind, upper.kind) == ("harmless", "suspicious")
    assert lower.y + lower.height == pytest.approx(drawn.bottom, abs=0.02)
    assert upper.y + upper.height == pytest.approx(lower.y, abs=0.02)
    assert lower.height == pytest.approx(3 * upper.height, abs=0.05)
    assert (drawn.bars[1].since, drawn.bars[1].until) == (NOON + 3600, NOON + 7200)


@pytest.mark.parametrize(("other", "kind"), [("", "harmless"), ("unknown", "unknown")])
def test_a_kind_that_is_none_of_these(other: str, kind: str) -> None:
    drawn = plot(
        points({0: {"rest": 3}}, 60),
        since=NOON,
        until=NOON + 60,
        step_s=60,
        kinds=KINDS,
        other=other,
    )
    assert [part.kind for part in drawn.bars[0].parts] == [kind]


@pytest.mark.parametrize(
    ("highest", "texts"),
    [
        (0, ["0", "1"]),
        (1, ["0", "1"]),
        (3, ["0", "1", "2", "3"]),
        (8, ["0", "2", "4", "6", "8"]),
        (77, ["0", "20", "40", "60", "80"]),
        (1000, ["0", "500", "1.0k"]),
        (123_456, ["0", "50k", "100k", "150k"]),
    ],
)
def test_levels(highest: int, texts: list[str]) -> None:
    given_ = points({0: {"unknown": highest}}, 60)
    drawn = plot(given_, since=NOON, until=NOON + 60, step_s=60, kinds=KINDS)
    assert [level.text for level in drawn.levels] == texts


@pytest.mark.parametrize(
    ("span_s", "step_s", "width", "texts"),
    [
        (3600, 900, NARROW, ["12:00", "12:30"]),
        (86400, 3600, NARROW, ["12:00", "18:00", "23 Sep", "06:00"]),
        (7 * 86400, 21600, WIDE, [f"{day} Sep" for day in range(23, 30)]),
        (7 * 86400, 21600, NARROW, ["24 Sep", "26 Sep", "28 Sep"]),
    ],
)
def test_times_are_round_and_do_not_touch(
    span_s: int, step_s: int, width: int, texts: list[str]
) -> None:
    drawn = plot([], since=NOON, until=NOON + span_s, step_s=step_s, kinds=KINDS, width=width)
    assert [tick.text for tick in drawn.times] == texts
    places = [tick.at for tick in drawn.times]
    assert all(after - before >= 60 for before, after in pairwise(places))


@given(
    st.dictionaries(
        st.integers(-5, 40), st.dictionaries(st.sampled_from(KINDS), st.integers(0, 10**12))
    ),
    st.sampled_from([60, 3600, 86400]),
    st.sampled_from([WIDE, NARROW]),
)
def test_all_that_is_in_the_span_is_drawn_inside(
    counts: dict[int, dict[str, int]], step_s: int, width: int
) -> None:
    drawn = plot(
        points(counts, step_s),
        since=NOON,
        until=NOON + 30 * step_s,
        step_s=step_s,
        kinds=KINDS,
        width=width,
    )
    inside = {place: parts for place, parts in counts.items() if _is_inside(place, step_s)}
    assert sum(bar.count for bar in drawn.bars) == sum(sum(p.values()) for p in inside.values())
    for bar in drawn.bars:
        assert drawn.left <= bar.place_x
        assert bar.place_x + bar.place_width <= drawn.right + 0.02
        assert all(part.y >= drawn.top - 0.02 for part in bar.parts)
    assert len({level.text for level in drawn.levels}) == len(drawn.levels) <= 6


def _is_inside(place: int, step_s: int) -> bool:
    first = NOON // step_s
    last = -((NOON + 30 * step_s) // -step_s)
    return first <= (NOON + place * step_s) // step_s < last


def test_bars_are_bounded() -> None:
    drawn = plot([], since=0, until=NOON, step_s=60, kinds=KINDS)
    assert len(drawn.bars) == MAX_BARS

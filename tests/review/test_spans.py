"""Which table answers for a span: single records, hours, days, none twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.observe.record import FlowRecord, Plane
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review.bounds import Bounds
from egressproxy.review.model import Filter
from egressproxy.review.spans import _by_days, times_of
from egressproxy.review.writer import Writer
from tests.review.records import START

if TYPE_CHECKING:
    from egressproxy.review.store import Store

HOUR: Final = 3600
DAY: Final = 86_400
DENY: Final = FlowRecord(
    START, "f", 1, Action.DENY, Reason.DEFAULT_DENY, Plane.TRANSPARENT, "tls", "10.1.0.4", 443
)
Asked = tuple[float | None, float | None]
Part = tuple[str, float | None, float | None]

SPANS: dict[str, tuple[Asked, int, list[Part]]] = {
    "all": ((None, None), DAY, [("daily", None, None)]),
    "two hours": ((100.5, 7300.5), DAY, [("record", 100.5, 7300.5)]),
    "a little more": ((100.5, 7301), DAY, [("hourly", 0, 3 * HOUR)]),
    "hours of one day": ((5000, 40_000), DAY, [("hourly", HOUR, 12 * HOUR)]),
    "over midnight": ((DAY - 5 * HOUR, DAY + HOUR), DAY, [("hourly", 19 * HOUR, 25 * HOUR)]),
    "a day": ((0, DAY), DAY, [("daily", 0, DAY)]),
    "a day and its ends": (
        (-HOUR, DAY + 1),
        DAY,
        [("daily", 0, DAY), ("hourly", -HOUR, 0), ("hourly", DAY, DAY + HOUR)],
    ),
    "since": ((-5000, None), DAY, [("daily", 0, None), ("hourly", -2 * HOUR, 0)]),
    "since midnight": ((0, None), DAY, [("daily", 0, None)]),
    "until": ((None, DAY + 5), DAY, [("daily", None, DAY), ("hourly", DAY, DAY + HOUR)]),
    "a plot by the hour": ((-HOUR, DAY * 9), HOUR, [("hourly", -HOUR, DAY * 9)]),
}


@pytest.mark.parametrize(("asked", "finest", "parts"), SPANS.values(), ids=SPANS)
def test_tables(store: Store, asked: Asked, finest: int, parts: list[Part]) -> None:
    record = DENY._replace(time=START - 30 * DAY)
    Writer(store, gateway="gw", bounds=Bounds()).add([record])
    since, until = (None if each is None else START + each for each in asked)
    with store.connect() as connection:
        times = times_of(connection, Filter(since=since, until=until), finest=finest)
    found = [
        (each.table.name, *(None if at is None else at - START for at in (each.first, each.end)))
        for each in times
    ]
    assert found == parts


_HOURS = st.none() | st.integers(0, 200).map(lambda hour: hour * HOUR)


@given(_HOURS, _HOURS)
def test_every_hour_is_counted_once(first: int | None, end: int | None) -> None:
    parts = list(_by_days(first, end))
    for hour in range(0, 300 * HOUR, HOUR):
        is_meant = (first is None or first <= hour) and (end is None or hour < end)
        day = hour // DAY * DAY
        covers = 0
        for part in parts:
            at = day if part.table.name == "daily" else hour
            covers += (part.first is None or part.first <= at) and (
                part.end is None or at < part.end
            )
        assert covers == is_meant

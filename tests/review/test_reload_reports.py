from __future__ import annotations

from typing import TYPE_CHECKING

from egressproxy.review.bounds import Bounds
from egressproxy.review.reload_reports import MAX_CHARACTERS, reload_reports
from egressproxy.review.writer import Writer

if TYPE_CHECKING:
    from egressproxy.review.store import Store


def note(store: Store, gateway: str, *texts: str) -> None:
    writer = Writer(store, gateway=gateway, bounds=Bounds())
    for at, text in enumerate(texts):
        writer.note_reload(at=float(at), outcome="applied", digest="", previous="", report=text)


def test_the_last_ones_of_one_gateway_oldest_first(store: Store) -> None:
    assert reload_reports(store, gateway="a", most=3) == ()
    note(store, "a", "1", "2", "3", "4")
    note(store, "b", "5")
    assert reload_reports(store, gateway="a", most=3) == ("2", "3", "4")
    assert reload_reports(store, gateway="b", most=3) == ("5",)


def test_long_ones_are_fewer(store: Store) -> None:
    half = "x" * (MAX_CHARACTERS // 2)
    note(store, "a", "1", half, half + "y", half)
    assert reload_reports(store, gateway="a", most=50) == (half,)

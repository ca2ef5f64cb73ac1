"""Timestamps of other formats, for any number that a record can hold."""

from __future__ import annotations

import math

import pytest

from egressproxy.export.moment import nanoseconds, utc_text

CASES = {
    "epoch": (0.0, "1970-01-01T00:00:00.000000Z", 0),
    "fraction": (1.25, "1970-01-01T00:00:01.250000Z", 1_250_000_000),
    "last": (253402300799.0, "9999-12-31T23:59:59.000000Z", 253402300799_000_000_000),
    "no calendar has it": (253402300800.0, "1970-01-01T00:00:00.000000Z", 0),
    "before the epoch": (-1.0, "1970-01-01T00:00:00.000000Z", 0),
    "no number": (math.nan, "1970-01-01T00:00:00.000000Z", 0),
    "endless": (math.inf, "1970-01-01T00:00:00.000000Z", 0),
}


@pytest.mark.parametrize(("seconds", "text", "nanos"), CASES.values(), ids=CASES)
def test_moment(seconds: float, text: str, nanos: int) -> None:
    assert utc_text(seconds) == text
    assert nanoseconds(seconds) == nanos

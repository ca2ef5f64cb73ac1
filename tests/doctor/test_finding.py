from __future__ import annotations

from egressproxy.doctor.finding import Finding, Level, fail, ok, warn


def test_levels() -> None:
    assert ok("a", "b") == Finding("a", Level.OK, "b")
    assert warn("a", "b", "c", "d") == Finding("a", Level.WARN, "b", "c", "d")
    assert fail("a", "b", "c", "d") == Finding("a", Level.FAIL, "b", "c", "d")

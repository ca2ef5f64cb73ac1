"""Every limit has a range, a unit in its name and a word on what it limits."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from egressproxy.errors import ServiceError
from egressproxy.settings import Settings

LIMITS = {limit.name: limit for limit in fields(Settings)}


@pytest.mark.parametrize("name", LIMITS)
def test_range(name: str) -> None:
    metadata = LIMITS[name].metadata
    kind = type(getattr(Settings(), name))
    assert metadata["help"]
    for edge in (metadata["low"], metadata["high"]):
        assert getattr(Settings(**{name: kind(edge)}), name) == edge
    outside: dict[str, Any] = {name: metadata["high"] * 2 + 1}
    with pytest.raises(ServiceError, match=name):
        Settings(**outside)
    with pytest.raises(ServiceError, match=name):
        Settings(**{name: metadata["low"] - 1})


@pytest.mark.parametrize("name", LIMITS)
def test_unit(name: str) -> None:
    unit = (
        "_s",
        "_bytes",
        "_days",
        "_entries",
        "_records",
        "_flows",
        "_files",
        "_in_flight",
        "_per_source",
    )
    assert name.endswith(unit)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ServiceError, match="idle_timeout_s"):
        Settings(idle_timeout_s=float("nan"))

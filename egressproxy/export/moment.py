"""POSIX seconds as the timestamps that other formats want."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_LAST: Final = 253402300799.0  # 9999-12-31T23:59:59Z, where datetime ends


def utc_text(seconds: float) -> str:
    """RFC 3339 in UTC with microseconds; a moment that no calendar has is the epoch."""
    if not 0 <= seconds <= _LAST:
        seconds = 0.0  # a NaN too
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def nanoseconds(seconds: float) -> int:
    """POSIX nanoseconds, as OTLP counts; 0 where they cannot be."""
    return int(seconds * 1e6) * 1000 if 0 <= seconds <= _LAST else 0

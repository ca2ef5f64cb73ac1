"""Records to write and counters to see."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from egressproxy.observe.record import FlowRecord, NameSource, Plane
from egressproxy.policy.verdict import Action, Pass, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

DENY: dict[str, Any] = {
    "time": 1_790_000_000.25,
    "flow_id": "0-1",
    "action": Action.DENY,
    "reason": Reason.DEFAULT_DENY,
    "plane": Plane.TRANSPARENT,
    "protocol": "tls",
    "src_ip": "10.240.0.4",
    "src_port": 50123,
    "dst_port": 443,
    "dst_ip": "20.1.2.3",
    "name": "evil.example",
    "name_source": NameSource.SNI,
    "decided_by": Pass.NONE,
}


class Tally:
    """What the log counted."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def log_dropped(self, records: int) -> None:
        self.counts["dropped"] += records

    def log_folded(self, records: int) -> None:
        self.counts["folded"] += records

    def log_error(self) -> None:
        self.counts["errors"] += 1

    def review_dropped(self, records: int) -> None:
        self.counts["review_dropped"] += records


@pytest.fixture
def make_record() -> Callable[..., FlowRecord]:
    """A denied flow, with any field set otherwise."""

    def make(**fields: Any) -> FlowRecord:
        return FlowRecord(**{**DENY, **fields})

    return make


@pytest.fixture
def tally() -> Tally:
    return Tally()

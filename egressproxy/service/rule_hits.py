"""How much the kernel's counters of network rules grew since they were looked at, for the review.

Forwarded allows make no records; these counters stand for them.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from egressproxy.service.recorder_messages import RuleHitsNote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INTERVAL_S: Final = 60.0


class RuleHits:
    """Counters begin anew when the table is made anew, or a rule comes back; none is a loss."""

    def __init__(self) -> None:
        self._before: dict[str, int] | None = None

    def grown(self, packets: Mapping[str, int]) -> dict[str, int]:
        """The packets of each rule since the last call; nothing for rules without any.

        What the counters had at the first call is from before this service, and not counted.
        """
        before, self._before = self._before, dict(packets)
        if before is None:
            return {}
        grown = {}
        for rule, now in packets.items():
            then = before.get(rule, 0)
            if more := now - then if now >= then else now:
                grown[rule] = more
        return grown


async def note_rule_hits(
    packets: Callable[[], Mapping[str, int]], note: Callable[[RuleHitsNote], None]
) -> None:
    """Note what came once a minute, and once more when cancelled.

    Args:
        packets: what the counters of all rules show now.
        note: takes what they grew by, unless none did.
    """
    hits = RuleHits()

    def tell() -> None:
        if grown := hits.grown(packets()):
            note(RuleHitsNote(grown, time.time()))

    try:
        while True:
            tell()
            await asyncio.sleep(INTERVAL_S)
    finally:
        tell()

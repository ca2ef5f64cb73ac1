"""``RuleHits``: how much the kernel's counters of network rules grew since they were looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


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

"""What the soak's client saw: how often each kind of exchange went as it should, and each fault."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

MAX_FAULTS: Final = 20
"""So many are told in words; all are counted."""


@dataclass(slots=True)
class Tally:
    """Counts by kind; ``octets`` are those that came back and were as sent."""

    done: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    told: list[str] = field(default_factory=list)
    octets: int = 0

    def fault(self, kind: str, what: str) -> None:
        """Note an exchange that did not go as it should."""
        self.faults += 1
        if len(self.told) < MAX_FAULTS:
            self.told.append(f"{kind}: {what}")

    def view(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            "done": dict(self.done),
            "faults": self.faults,
            "told": self.told,
            "octets": self.octets,
        }

"""What the servers saw, as JSON lines in a file: the lab's truth about what reached them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE: Final = "events.jsonl"
_POLL_S: Final = 0.02


@dataclass(slots=True)
class EventWriter:
    """Appends events; an event is in the file before the answer it belongs to is sent."""

    path: Path

    def write(self, kind: str, **facts: Any) -> None:
        """Append one event."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": kind, "time": time.time(), **facts}) + "\n")


@dataclass(slots=True)
class EventReader:
    """Reads JSON lines as they are appended; a half-written last line waits for its rest."""

    path: Path
    seen: list[dict[str, Any]] = field(default_factory=list)
    _offset: int = 0

    def read(self) -> list[dict[str, Any]]:
        """Everything so far, oldest first."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            self.seen.extend(json.loads(line) for line in whole.splitlines())
        return self.seen

    def wait(
        self, wanted: Callable[[dict[str, Any]], bool], *, skip: int = 0, timeout_s: float = 5.0
    ) -> dict[str, Any]:
        """The first event after ``skip`` that is wanted.

        Raises:
            TimeoutError: none came in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            for event in self.read()[skip:]:
                if wanted(event):
                    return event
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing of the kind in {self.path.name} in {timeout_s} s")
            time.sleep(_POLL_S)

    def mark(self) -> int:
        """How many there are: a ``skip`` for what comes later."""
        return len(self.read())

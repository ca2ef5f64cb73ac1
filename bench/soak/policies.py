"""The policies of a soak: each reload another one, some of them bad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.peers.peer import write_policy

if TYPE_CHECKING:
    from pathlib import Path

FLIPPING: Final = "flipping.example.com"
"""Allowed by every other policy."""
NAMES: Final = 200
"""So many others are in every policy, all of one length."""
CHANGED: Final = 10
"""So many of them are others in every policy. The service remembers the changes of its last 100
reloads in words, which with more would be what grows."""
BAD_EVERY: Final = 3


def is_bad(turn: int) -> bool:
    """Whether the policy of this turn is to be refused."""
    return turn % BAD_EVERY == BAD_EVERY - 1


def put_policy(directory: Path, turn: int) -> None:
    """Replace ``policy.yaml`` at once, as an editor does."""
    turns = [turn] * CHANGED + [0] * (NAMES - CHANGED)
    names = [f"host{number:04}-turn{turn:06}.example.com" for number, turn in enumerate(turns)]
    rules = [f"  - {{name: turn, to: [{', '.join(names)}], ports: [https]}}"]
    if turn % 2 == 0:
        rules.append(f"  - {{name: flipping, to: [{FLIPPING}], ports: [https]}}")
    if is_bad(turn):
        rules.append("  - {name: bad, to: ['not a name'], prots: [https]}")
    draft = directory / "draft"
    draft.mkdir(exist_ok=True)
    written = write_policy(draft)
    written.write_text(written.read_text() + "rules:\n" + "\n".join(rules) + "\n")
    written.replace(directory / "policy.yaml")

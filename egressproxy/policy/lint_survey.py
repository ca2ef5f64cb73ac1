"""``Survey``: a policy and what compiling it found out, as the families of the lint ask for it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from egressproxy.policy.compile import compile_policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.policy.program import Gate, Program
    from egressproxy.policy.rules import Policy, Rule


@dataclass(frozen=True, slots=True)
class Survey:
    """``now`` is POSIX seconds: what has expired then counts no more."""

    policy: Policy
    program: Program
    now: float

    @classmethod
    def of(cls, policy: Policy, now: float | None) -> Survey:
        """Compile; the clock's time where none is given."""
        at = time.time() if now is None else now
        return cls(policy, compile_policy(policy).program, at)

    def gate(self, number: int) -> Gate:
        """The gate of a rule."""
        return self.program.gates[self.program.gate_of[number]]

    def in_force(self) -> Iterator[tuple[int, Rule]]:
        """The rules that count now for somebody, with their numbers."""
        for number, rule in enumerate(self.policy.rules):
            if self.gate(number).expires > self.now and rule.sources != ():
                yield number, rule

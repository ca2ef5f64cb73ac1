"""A generation: one policy as loaded, compiled, and packed for the workers.

Built in a thread, because loading reads files and compiling takes time. Its descriptors (a bundle
of chunks, list tables) are given to every worker and to every later restart of one, so they stay
open until the next generation is in force.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.policy.ship import ship
from egressproxy.service.bundle import pack_chunks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from egressproxy.policy.known import Known
    from egressproxy.policy.rules import Policy
    from egressproxy.policy.ruleset import Ruleset


@dataclass(frozen=True, slots=True)
class Generation:
    """The ``number``-th policy of this service; ``loaded_at`` is POSIX seconds."""

    number: int
    policy: Policy
    ruleset: Ruleset
    descriptors: tuple[int, ...]
    read_at_ns: int
    """When reading its files began, POSIX nanoseconds."""
    loaded_at: float

    def close(self) -> None:
        """Close the descriptors; workers that have it keep their own."""
        for fd in self.descriptors:
            os.close(fd)


def renew(old: Generation, number: int) -> Generation:
    """The same policy as a generation of its own, for the open flows to be judged anew; blocks."""
    return _pack(old.policy, old.ruleset, number, old.read_at_ns)


def renew_known(old: Generation, number: int, known: Known | None) -> Generation:
    """The same policy with other known names, as a generation of its own; blocks."""
    return _pack(old.policy, old.ruleset.with_known(known), number, old.read_at_ns)


def load_generation(
    path: Path,
    number: int,
    *,
    allow_outside: bool,
    known: Callable[[Policy], Known | None] | None = None,
) -> Generation:
    """Load, compile and pack a policy; blocks.

    Args:
        path: the policy, or the folder (a mounted ConfigMap) that has it as ``policy.yaml``.
        number: of the generation to be.
        allow_outside: whether the policy may name files outside its folder.
        known: blocks, and says which names ``mode: warn-on-new`` does not take for new.

    Raises:
        PolicyError: every problem of the policy.
    """
    read_at_ns = time.time_ns()
    policy = load_policy(path, allow_outside=allow_outside)
    ruleset = compile_policy(policy)
    names = known(policy) if known is not None else None
    return _pack(policy, ruleset.with_known(names) if names else ruleset, number, read_at_ns)


def _pack(policy: Policy, ruleset: Ruleset, number: int, read_at_ns: int) -> Generation:
    shipment = ship(ruleset)
    return Generation(
        number=number,
        policy=policy,
        ruleset=ruleset,
        descriptors=(pack_chunks(shipment.chunks), *shipment.fds),
        read_at_ns=read_at_ns,
        loaded_at=time.time(),
    )

"""``compile_policy``: from a ``Policy`` to its ``Ruleset``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egressproxy.policy.rules import Policy
    from egressproxy.policy.ruleset import Ruleset


def compile_policy(policy: Policy) -> Ruleset:
    """Compile; a million list entries take seconds (call it off the loop)."""
    raise NotImplementedError

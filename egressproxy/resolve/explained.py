"""The explanation that people are given: the policy's, unless the guard has the last word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.policy.explain import Explanation, explain
from egressproxy.policy.verdict import Action, Reason, Verdict
from egressproxy.resolve.guard import is_never_dialled

if TYPE_CHECKING:
    from egressproxy.policy.rules import Policy
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.policy.verdict import Flow

FORBIDDEN: Final = Verdict(Action.DENY, Reason.FORBIDDEN_ADDRESS)
NEVER_DIALLED: Final = "never dialled, whatever the policy says"


def explained(policy: Policy, ruleset: Ruleset, flow: Flow, now: float) -> Explanation:
    """The policy's answer, unless no policy can open the address: then nothing to write helps.

    ``ruleset`` is compiled from ``policy``; ``now`` is POSIX seconds.
    """
    if flow.dst is None or not is_never_dialled(flow.dst):
        return explain(policy, ruleset, flow, now)
    return Explanation(
        flow=flow,
        verdict=FORBIDDEN,
        rule=None,
        mentioned_as="",
        source_group=ruleset.source_group(flow.src),
        near_misses=(),
        note=NEVER_DIALLED,
        needed=(),
    )

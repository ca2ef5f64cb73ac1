"""Reload: the open flows under a new ruleset.

A flow keeps the ruleset it was decided under until a reload revokes it. Flows that are relayed are
judged again here, a slice a turn, so that twenty thousand of them stall nobody; so are flows on
their way to an upstream, which would else be dialled after the reload. What is still sniffed is
judged by the ruleset that it began with, and again before it dials (``stands``); kept-alive HTTP
asks the ruleset of the day for every request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.planes.flow import Leg, Stage
from egressproxy.planes.http_commands import CloseReason
from egressproxy.policy.rules import OnReload
from egressproxy.policy.verdict import Action, Pass, Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from egressproxy.planes.context import Judge
    from egressproxy.planes.flow import Flow
    from egressproxy.planes.parts import Parts

_SLICE: Final = 256
"""Places of the reactor's table that one turn looks at: about a millisecond."""
_JUDGED: Final = frozenset({Stage.RESOLVE, Stage.DIAL, Stage.RELAY})


@dataclass(slots=True)
class SwapReport:
    """How a swap goes; filled in as it goes on, ``done`` at the end.

    ``open`` flows were there at the commit; of those judged again ``closed`` and ``kept`` (option
    ``on_reload: keep``) are denied now.
    """

    open: int
    judged: int = 0
    closed: int = 0
    kept: int = 0
    done: bool = False


class Revoker:
    """Judges open flows again."""

    def __init__(self, parts: Parts) -> None:
        self._context = parts.context
        self._reactor = parts.reactor
        self._flows = parts.flows
        self._ledger = parts.ledger
        self._place = 0
        self._report = SwapReport(0, done=True)
        self.revoke_http: Callable[[Flow], bool] = _is_allowed

    @property
    def is_busy(self) -> bool:
        """Whether flows wait for their judgement."""
        return not self._report.done

    def swap(self, ruleset: Judge) -> SwapReport:
        """Commit: every flow from now on is judged by ``ruleset``; overtakes a swap under way."""
        self._report.done = True
        self._context.ruleset = ruleset
        self._place = 0
        self._report = SwapReport(self._flows.active, done=not self._flows.active)
        return self._report

    def turn(self) -> None:
        """Judge a slice."""
        table, place = self._reactor.table, self._place
        self._place = place + _SLICE
        for entry in table[place : self._place]:
            if isinstance(entry, Leg) and entry.watched and entry is entry.flow.client:
                self._reactor.call(entry.flow, self._judge, entry.flow)
        self._report.done = self._place >= len(table)

    def _judge(self, flow: Flow) -> None:
        self._report.judged += 1
        if flow.stage in _JUDGED:
            self.stands(flow)
        elif flow.stage is Stage.HTTP and not self.revoke_http(flow):
            self._report.closed += 1

    def stands(self, flow: Flow) -> bool:
        """Whether a judged flow may go on under the ruleset of now; closes it where it may not."""
        context = self._context
        ruleset = context.ruleset
        facts = flow.facts
        if flow.ruleset is ruleset or facts is None:
            return True
        by_name = flow.dst_ip is not None and not _is_by_address(flow)
        decide = ruleset.decide_name if by_name else ruleset.decide
        verdict = decide(facts, context.wall_clock())
        flow.ruleset = ruleset
        if verdict.is_allow:
            if not (flow.counted and _is_audited(flow.verdict) is not verdict.would_deny):
                flow.verdict = verdict
            return True
        if ruleset.on_reload is OnReload.KEEP:
            self._report.kept += 1
            return True
        self._report.closed += 1
        revoked = Verdict(Action.DENY, Reason.REVOKED, verdict.rule_id, verdict.decided_by)
        self._ledger.account(flow)
        self._ledger.refused(flow, revoked)
        flow.verdict = revoked
        self._flows.end(flow, CloseReason.REVOKED, reset=True)
        return False


def _is_by_address(flow: Flow) -> bool:
    """Whether pass 1 allowed it: then the address that its client wanted is dialled."""
    return flow.verdict is not None and flow.verdict.decided_by is Pass.NETWORK


def _is_audited(verdict: Verdict | None) -> bool:
    """As what an open flow was counted, and so what its last record has to say."""
    return verdict is not None and verdict.would_deny


def _is_allowed(_flow: Flow) -> bool:
    return True

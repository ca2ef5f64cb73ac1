"""``Ledger``: what became of each flow, into counters and records.

Each flow is counted once, when its outcome is known. Its record: a deny or an error at once; an
allow at its close, as far as the options say; an allow that enforcing would have denied at once
(close reason ``open``), because that is what audit mode is for. A client that left before it said
anything is counted, and written only where every allow is: health probes are no news.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.observe.record import FlowRecord, NameSource
from egressproxy.planes.context import AllowRecords
from egressproxy.policy.decide import NAMELESS
from egressproxy.policy.verdict import Action, Reason, Verdict
from egressproxy.ports import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from egressproxy.planes.context import EngineContext
    from egressproxy.planes.flow import Flow
    from egressproxy.planes.http_commands import NameRecord
    from egressproxy.policy.verdict import Flow as Facts
    from egressproxy.resolve.guard import Guard

STILL_OPEN: Final = "open"
_UNREAD: Final = Protocol.TCP
_DENY: Final = Action.DENY
_ERROR: Final = Action.ERROR
_SILENT: Final = Reason.CLOSED_BEFORE_HELLO
_HTTP: Final = Protocol.HTTP

_new: Final = tuple.__new__
"""What the generated ``__new__`` of a named tuple calls; calling that costs three times as much."""
_TIMED: Final = 16
"""One judgement in so many is timed: looking at the clock takes as long as judging."""


FORBIDDEN: Final = Verdict(_DENY, Reason.FORBIDDEN_ADDRESS)


def is_for_nobody(facts: Facts, guard: Guard) -> bool:
    """Whether a flow has an address for its only destination, and no policy can open that one."""
    dst = facts.dst
    return dst is not None and facts.fault in NAMELESS and guard.never_dials(dst)


class Ledger:
    """Counts and writes; the only place that knows what a record is made of."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._log = context.log
        self._counters = context.counters
        self._writes_all = context.options.allow_records is AllowRecords.ALL
        self._writes_some = context.options.allow_records is AllowRecords.SAMPLE
        self._sample_every = max(1, context.options.sample_every)
        self._sampled = 0
        self._up = self._down = 0
        # Unique over restarts: a worker does not start twice in a millisecond.
        self._prefix = f"{context.options.worker}-{int(context.wall_clock() * 1000):x}-"

    def flush(self) -> None:
        """Tell the metrics which bytes were added up since the last tick."""
        if self._up or self._down:
            self._counters.bytes_moved(self._up, self._down)
            self._up = self._down = 0

    def flow_id(self, flow: Flow) -> str:
        """What a flow is called in its records."""
        return f"{self._prefix}{flow.number}"

    def judge(self, flow: Flow, facts: Facts, decide: Callable[[Facts, float], Verdict]) -> Verdict:
        """Ask a ruleset, and time it now and then.

        A flow without a name can only be for its address: of one that is never dialled the ruleset
        is not asked, whose audit would write of an allow that never was.
        """
        context = self._context
        if facts.fault is not None and is_for_nobody(facts, context.guard):
            return FORBIDDEN
        if flow.number % _TIMED:
            return decide(facts, context.wall_clock())
        begun = context.clock()
        verdict = decide(facts, context.wall_clock())
        self._counters.decide_s(context.clock() - begun)
        return verdict

    def refused(self, flow: Flow, verdict: Verdict) -> None:
        """A deny, or an error after an allow; counted and written at once."""
        self.count(flow, verdict)
        if self._writes_all or verdict.reason is not _SILENT:
            why = "error" if verdict.action is _ERROR else "refused"
            self._log.write(self._record(flow, verdict, why))

    def vanished(self, flow: Flow, verdict: Verdict, *, quiet: bool) -> None:
        """The client left before there was anything to judge; ``quiet``: it never said a word."""
        self.count(flow, verdict)
        if self._writes_all or not quiet:
            self._log.write(self._record(flow, verdict, "client_closed"))

    def opened(self, flow: Flow) -> None:
        """An allowed flow has its upstream."""
        verdict = flow.verdict
        if verdict is None or flow.counted:
            return
        self.count(flow, verdict)
        if verdict.would_deny:
            self._log.write(self._record(flow, verdict, STILL_OPEN))

    def account(self, flow: Flow) -> None:
        """Move the legs' byte counts into the flow's and the metrics'."""
        up = flow.client.moved
        flow.client.moved = 0
        upstream = flow.upstream
        down = 0
        if upstream is not None:
            down = upstream.moved
            upstream.moved = 0
        flow.up += up
        flow.down += down
        self._up += up
        self._down += down

    def closed(self, flow: Flow, why: str) -> None:
        """An allowed flow has ended."""
        verdict = flow.verdict
        if verdict is None or not verdict.is_allow:
            return
        if not flow.counted:
            self.count(flow, verdict)
        if self._writes_all or self._is_sampled():
            self._log.write(self._record(flow, verdict, why))

    def http_opened(self, flow: Flow, name: NameRecord) -> None:
        """A name was allowed on an HTTP connection; it is counted when its record is complete."""
        if name.verdict.would_deny:
            self._log.write(self._http_record(flow, name, STILL_OPEN))

    def http_closed(self, flow: Flow, name: NameRecord) -> None:
        """A name's record is complete: a deny or error at once, an allow at its end."""
        verdict = name.verdict
        self._counters.flow(
            flow.plane, verdict.action, verdict.reason, would_deny=verdict.would_deny
        )
        self._up += name.bytes_up
        self._down += name.bytes_down
        if not verdict.is_allow or self._writes_all or self._is_sampled():
            self._log.write(self._http_record(flow, name, name.close_reason or ""))

    def count(self, flow: Flow, verdict: Verdict) -> None:
        """Into the counters, where the flow's outcome is known."""
        flow.counted = True
        self._counters.flow(
            flow.plane, verdict.action, verdict.reason, would_deny=verdict.would_deny
        )

    def _is_sampled(self) -> bool:
        if not self._writes_some:
            return False
        self._sampled += 1
        return self._sampled % self._sample_every == 0

    def _record(self, flow: Flow, verdict: Verdict, why: str) -> FlowRecord:
        facts = flow.facts
        context = self._context
        ruleset = flow.ruleset or context.ruleset
        name = None if facts is None else facts.name or facts.connect
        denied_name = name if verdict.action is _DENY or verdict.would_deny else None
        age = context.clock() - flow.started
        fields = (
            context.wall_clock() - age,
            self.flow_id(flow),
            flow.src_port,
            verdict.action,
            verdict.reason,
            flow.plane,
            _UNREAD if facts is None else facts.protocol,
            flow.source.address,
            flow.dst_port,
            verdict.rule_id,
            verdict.decided_by,
            verdict.would_deny,
            ruleset.source_group(flow.source.address),
            flow.dst_ip,
            name,
            flow.name_source,
            flow.alpn,
            flow.tls_versions,
            facts is not None and facts.ech,
            flow.hello_split,
            flow.dialled_ip,
            flow.match,
            why,
            ruleset.digest,
            ruleset.note(denied_name) if denied_name is not None else "",
            flow.up,
            flow.down,
            flow.requests,
            age,
            1,
        )
        return _new(FlowRecord, fields)

    def _http_record(self, flow: Flow, name: NameRecord, why: str) -> FlowRecord:
        authority, verdict = name.authority, name.verdict
        host = None if authority is None else authority.name
        is_news = verdict.action is _DENY or verdict.would_deny
        ruleset = flow.ruleset or self._context.ruleset
        return self._record(flow, verdict, why)._replace(
            protocol=_HTTP,
            dst_port=flow.dst_port if authority is None else authority.port,
            dst_ip=flow.dst_ip if authority is None or not authority.address else authority.address,
            name=host,
            name_source=NameSource.NONE if authority is None else NameSource.HOST,
            dialled_ip=name.dialled_ip or None,
            destination_match=name.destination_match or "unknown",
            bytes_up=name.bytes_up,
            bytes_down=name.bytes_down,
            requests=name.requests,
            note=ruleset.note(host) if host is not None and is_news else "",
        )

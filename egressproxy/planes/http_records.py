"""The records of one HTTP connection: one a judged name, bounded, each finished exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.planes.http_commands import CloseReason, Finished, NameRecord

if TYPE_CHECKING:
    from egressproxy.planes.http_outbox import Outbox
    from egressproxy.policy.verdict import Verdict
    from egressproxy.wire.http_authority import Authority

MAX_NAMES: Final = 16
"""Open records of one connection; the one that was longest unused is finished for the next."""


class Records:
    """Open records by authority, least recently used first."""

    __slots__ = ("_open", "_out")

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._open: dict[Authority | None, NameRecord] = {}

    @property
    def last(self) -> NameRecord | None:
        """That of the last request, while it is open."""
        return next(reversed(self._open.values()), None)

    def bytes_moved(self) -> tuple[int, int]:
        """Octets up and down of all open records."""
        found = self._open.values()
        return sum(each.bytes_up for each in found), sum(each.bytes_down for each in found)

    def use(self, authority: Authority | None, verdict: Verdict) -> NameRecord:
        """The open record of an allowed name; a new one where policy now says otherwise."""
        record = self._open.pop(authority, None)
        if record is not None and not same_verdict(record.verdict, verdict):
            self._finish(record, CloseReason.EVICTED)
            record = None
        if record is None:
            if len(self._open) >= MAX_NAMES:
                oldest = next(iter(self._open))
                self._finish(self._open.pop(oldest), CloseReason.EVICTED)
            record = NameRecord(authority, verdict)
        self._open[authority] = record
        return record

    def deny(self, authority: Authority | None, verdict: Verdict, reason: CloseReason) -> None:
        """Record a deny or an error at once.

        A record of the name that has carried no request yet becomes this one.
        """
        record = self._open.get(authority)
        if record is not None and not record.requests:
            del self._open[authority]
            record.verdict = verdict
        else:
            record = NameRecord(authority, verdict)
        record.requests = 1
        self._finish(record, reason)

    def finish(self, reason: CloseReason) -> None:
        """Finish every open record."""
        for record in self._open.values():
            self._finish(record, reason)
        self._open.clear()

    def release(self, record: NameRecord) -> None:
        """Let go of a record that somebody else will finish."""
        self._open.pop(record.authority, None)

    def _finish(self, record: NameRecord, reason: CloseReason) -> None:
        record.close_reason = reason
        self._out.add(Finished(record))


def same_verdict(one: Verdict, other: Verdict) -> bool:
    """Whether two judgements dial and record alike; interned verdicts make it an identity test."""
    return one is other or (one == other and one.rule == other.rule)

"""Reloads of the past: as one JSON text each for the review store, and back.

The text is what ``POST /reload`` answers (``report_view``), so that whoever reads the store knows
it already; of a very long one the end of the changes is left out.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from egressproxy.errors import Problem
from egressproxy.service.forwarded import Revocation
from egressproxy.service.recorder_messages import ReloadNote
from egressproxy.service.report import Installation, Outcome, ReloadReport, Trigger, report_view

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_REPORTS: Final = 100
"""Kept in memory."""
MAX_TEXT: Final = 48 << 10
"""Characters of one report; a note has to fit into a packet (``channel.MAX_PACKET_BYTES``)."""
_MAX_LINE: Final = 2000


def reload_note(report: ReloadReport) -> ReloadNote:
    """A reload on its way into the store."""
    return ReloadNote(
        at=report.at,
        outcome=str(report.outcome),
        digest=report.digest,
        previous=report.previous,
        report=report_text(report),
    )


def report_text(report: ReloadReport) -> str:
    """A report as JSON in ASCII, at most about ``MAX_TEXT`` characters."""
    view = report_view(report)
    room = MAX_TEXT
    view["changes"], room = _fitting(view["changes"], room)
    view["problems"], _ = _fitting(view["problems"], room)
    view["error"] = view["error"] and view["error"][:_MAX_LINE]
    return json.dumps(view)


def past_reports(texts: Iterable[str]) -> tuple[ReloadReport, ...]:
    """The reports of texts that ``report_text`` made; others are left out."""
    found = (read_report(text) for text in texts)
    return tuple(report for report in found if report is not None)


def read_report(text: str) -> ReloadReport | None:
    """The inverse of ``report_text``, but for the service tags; ``None`` for anything else."""
    try:
        return _report(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _report(view: dict[str, Any]) -> ReloadReport:
    return ReloadReport(
        outcome=Outcome(view["outcome"]),
        triggers=tuple(Trigger(each) for each in view["triggers"]),
        at=datetime.fromisoformat(view["at"]).timestamp(),
        digest=str(view["digest"]),
        duration_s=float(view["duration_ms"]) / 1000,
        previous=str(view["previous"] or ""),
        changes=tuple(str(each) for each in view["changes"]),
        problems=tuple(_problem(each) for each in view["problems"]),
        error=str(view["error"] or ""),
        installation=Installation(
            workers=int(view["workers"]),
            revoked=int(view["revoked"]),
            kept=int(view["kept"]),
            stall_s=float(view["stall_ms"]) / 1000,
        ),
        forwarded=Revocation(int(view["kernel_revoked"]), int(view["kernel_kept"])),
    )


def _problem(view: dict[str, Any]) -> Problem:
    return Problem(
        file=str(view["file"]),
        line=int(view["line"]),
        column=int(view["column"]),
        what=str(view["what"]),
        hint=str(view["hint"]),
    )


def _fitting(items: list[Any], room: int) -> tuple[list[Any], int]:
    """As many of the first items as have room in the text, and the room that is left."""
    kept: list[Any] = []
    for item in items:
        room -= len(json.dumps(item)) + 2
        if room < 0:
            break
        kept.append(item)
    return kept, max(room, 0)

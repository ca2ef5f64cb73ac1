"""Lines and records of a review as programs read them: JSON objects and CSV.

What a peer chose is in both. JSON escapes it; CSV is opened in spreadsheets, so that no cell can
be a formula (OWASP, "CSV Injection") and none has a control character.
"""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from egressproxy.review.model import Finding, Group, ReviewLine, StoredRecord
    from egressproxy.review.report import Report

_SIGNS: Final = "=+\\-@\uff1d\uff0b\uff0d\uff20"  # wide ones too: spreadsheets of East Asia
_FORMULA: Final = re.compile(rf"[{_SIGNS}]")
_INNER_FORMULA: Final = re.compile(rf""";(?=[\s"';]*[{_SIGNS}])""")
"""Where a spreadsheet parts cells by semicolons, whatever stands in quotes, and one begins so."""


def report_as_json(report: Report, by: Group) -> dict[str, Any]:
    """A whole report; times are RFC 3339 in UTC, ``more`` counts lines that were left out."""
    totals = report.totals
    return {
        "by": str(by),
        "totals": {
            "flows": totals.flows,
            "targets": totals.targets,
            "sources": totals.sources,
            "gateways": totals.gateways,
            "first_seen": None if totals.first_at is None else stamp(totals.first_at),
            "last_seen": None if totals.last_at is None else stamp(totals.last_at),
        },
        "classes": {
            str(each.kind): {"lines": each.lines, "flows": each.flows} for each in report.classes
        },
        "lines": [line_as_json(line) for line in report.lines],
        "more": report.more,
        "is_cut": report.is_cut,
    }


def line_as_json(line: ReviewLine) -> dict[str, Any]:
    """One line; every key always, in this order."""
    return {
        "key": line.key,
        "flows": line.count,
        "audited": line.audited,
        "first_seen": stamp(line.first_at),
        "last_seen": stamp(line.last_at),
        "targets": list(line.targets),
        "target_count": line.target_count,
        "ports": list(line.ports),
        "sources": list(line.source_sample),
        "source_count": line.sources,
        "reasons": list(line.reasons),
        "rules": list(line.rules),
        "gateways": list(line.gateways),
        "bytes_up": line.bytes_up,
        "bytes_down": line.bytes_down,
        "note": line.note,
    } | _finding_as_json(line.finding)


def record_as_json(record: StoredRecord, finding: Finding | None = None) -> dict[str, Any]:
    """One record, its fields called as in the log."""
    subject = record.subject
    return {
        "id": record.id,
        "time": stamp(record.at),
        "gateway": subject.gateway,
        "flow_id": record.flow_id,
        "action": str(subject.action),
        "reason": str(subject.reason),
        "rule": subject.rule,
        "pass": str(subject.decided_by),
        "would_deny": subject.would_deny,
        "plane": str(subject.plane),
        "protocol": subject.protocol,
        "src_ip": subject.src_ip,
        "src_port": record.src_port,
        "source_group": subject.source_group,
        "dst_ip": record.dst_ip,
        "dst_port": subject.dst_port,
        "name": subject.name,
        "name_source": str(subject.name_source),
        "alpn": list(subject.alpn),
        "tls_versions": list(record.tls_versions),
        "ech": subject.ech,
        "hello_split": subject.hello_split,
        "dialled_ip": record.dialled_ip,
        "destination_match": record.destination_match,
        "bytes_up": record.bytes_up,
        "bytes_down": record.bytes_down,
        "requests": record.requests,
        "duration_s": record.duration_s,
        "close_reason": record.close_reason,
        "policy": record.policy,
        "count": record.count,
        "note": subject.note,
    } | _finding_as_json(finding)


def lines_as_csv(lines: Iterable[ReviewLine], by: Group) -> Iterator[str]:
    """The heading and a row a line, each with its line end (RFC 4180); lists parted by blanks."""
    heading = {"key": str(by)}
    rows = (line_as_json(line) for line in lines)
    yield _row([heading.get(key, key) for key in _LINE_KEYS])
    for row in rows:
        yield _row([_cell(row[key]) for key in _LINE_KEYS])


_LINE_KEYS: Final = (
    "flows",
    "audited",
    "key",
    "target_count",
    "targets",
    "ports",
    "source_count",
    "sources",
    "first_seen",
    "last_seen",
    "reasons",
    "rules",
    "bytes_up",
    "bytes_down",
    "gateways",
    "class",
    "why",
    "requirement",
    "symptom",
    "note",
)


def printable(text: str) -> str:
    """A text that moves no cursor and turns no reading order, whoever chose it."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def stamp(at: float) -> str:
    """RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _finding_as_json(finding: Finding | None) -> dict[str, Any]:
    return {
        "class": str(finding.kind) if finding else None,
        "why": finding.why if finding else "",
        "requirement": finding.requirement if finding else None,
        "symptom": finding.symptom if finding else "",
    }


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return str(value)
    text = printable(" ".join(value) if isinstance(value, list) else str(value))
    text = _INNER_FORMULA.sub(";'", text)
    return f"'{text}" if _FORMULA.match(text) else text


def _row(cells: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()

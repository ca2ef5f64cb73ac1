"""Reports outlive the service, and what is not one is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import Problem
from egressproxy.service.channel import MAX_PACKET_BYTES
from egressproxy.service.forwarded import Revocation
from egressproxy.service.messages import encode
from egressproxy.service.reload_history import (
    MAX_TEXT,
    past_reports,
    read_report,
    reload_note,
    report_text,
)
from egressproxy.service.report import Installation, Outcome, ReloadReport, Trigger

REPORT = ReloadReport(
    outcome=Outcome.APPLIED,
    triggers=(Trigger.FILE, Trigger.SIGNAL),
    at=1_790_000_000.25,
    digest="ab" * 32,
    duration_s=0.0125,
    previous="cd" * 32,
    changes=("rule a is new", "rule b opens *.‮example <b>"),
    installation=Installation(workers=2, revoked=3, kept=4, stall_s=0.001),
    forwarded=Revocation(5, 6),
)
REFUSED = ReloadReport(
    outcome=Outcome.REFUSED,
    triggers=(Trigger.ADMIN,),
    at=1_790_000_001.0,
    digest="ab" * 32,
    problems=(Problem("policy.yaml", 3, 5, "no such key", "did you mean?"),),
    error="the policy is bad",
)


@pytest.mark.parametrize("report", [REPORT, REFUSED], ids=["applied", "refused"])
def test_there_and_back(report: ReloadReport) -> None:
    text = report_text(report)
    assert text.isascii()
    assert read_report(text) == report
    note = reload_note(report)
    assert (note.at, note.outcome, note.digest) == (report.at, report.outcome, report.digest)
    assert note.report == text


@given(st.lists(st.text(max_size=3000), max_size=200), st.lists(st.text(max_size=3000)))
def test_a_long_one_fits_into_a_packet(changes: list[str], problems: list[str]) -> None:
    report = ReloadReport(
        outcome=Outcome.REFUSED,
        triggers=(Trigger.FILE,),
        at=1.0,
        digest="",
        changes=tuple(changes),
        problems=tuple(Problem(each, 1, 1, each, each) for each in problems),
        error="".join(changes),
    )
    note = reload_note(report)
    assert len(encode(note)) <= MAX_PACKET_BYTES
    kept = read_report(note.report)
    assert kept is not None
    assert kept.changes == report.changes[: len(kept.changes)]
    if len(json.dumps(changes)) < MAX_TEXT:
        assert kept.changes == report.changes


BAD: dict[str, Any] = {
    "no JSON": "{",
    "no object": "[]",
    "lacks all": "{}",
    "another outcome": report_text(REPORT).replace('"applied"', '"exploded"'),
    "no date": report_text(REPORT).replace("2026-09-21T", "yesterday"),
    "no list": report_text(REPORT).replace('"triggers": ["file", "signal"]', '"triggers": 7'),
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_is_no_report_is_left_out(text: str) -> None:
    assert text != report_text(REPORT)
    assert read_report(text) is None
    assert past_reports([text, report_text(REPORT)]) == (REPORT,)

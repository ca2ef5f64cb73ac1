"""Lines as JSON and CSV: what a peer chose is data in both, nowhere a command."""

from __future__ import annotations

import csv
import io
import json
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.observe.record import FlowRecord, Plane, to_json_line
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review.formats import (
    line_as_json,
    lines_as_csv,
    printable,
    record_as_json,
    report_as_json,
    stamp,
)
from egressproxy.review.model import Class, Finding, Group, ReviewLine, StoredRecord
from egressproxy.review.queries import Totals
from egressproxy.review.report import ClassCount, Report
from tests.review.subjects import subject

LINE: Final = ReviewLine(
    key="a.example",
    count=12,
    first_at=1_790_035_200.0,
    last_at=1_790_035_260.9,
    sources=2,
    source_sample=("10.1.0.4", "10.1.0.5"),
    targets=("a.example",),
    target_count=1,
    ports=("tls:443",),
    reasons=("default_deny",),
    rules=(),
    gateways=("gw",),
    note="harmless: disk metadata",
    finding=Finding(
        kind=Class.MISSING_REQUIREMENT, why="in aks/x", requirement="aks/x", symptom="exit 50"
    ),
)


def rows(*lines: ReviewLine) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("".join(lines_as_csv(lines, Group.NAME)), newline="")))


def test_a_row_has_what_the_object_has() -> None:
    (row,) = rows(LINE)
    assert row == {
        "flows": "12",
        "audited": "0",
        "name": "a.example",
        "target_count": "1",
        "targets": "a.example",
        "ports": "tls:443",
        "source_count": "2",
        "sources": "10.1.0.4 10.1.0.5",
        "first_seen": "2026-09-22T00:00:00Z",
        "last_seen": "2026-09-22T00:01:00Z",
        "reasons": "default_deny",
        "rules": "",
        "bytes_up": "0",
        "bytes_down": "0",
        "gateways": "gw",
        "class": "missing requirement",
        "why": "in aks/x",
        "requirement": "aks/x",
        "symptom": "exit 50",
        "note": "harmless: disk metadata",
    }
    assert set(line_as_json(LINE)) == set(row) - {"name"} | {"key"}


FORMULAS: dict[str, str] = {
    "equals": "=cmd|' /C calc'!A0",
    "plus": "+1+1",
    "minus": "-2+3",
    "at": "@SUM(A1)",
    "after a tab": "\t=1+1",
    "after a line end": "\r\n=1+1",
    "wide equals": "\N{FULLWIDTH EQUALS SIGN}1+1",
    "wide at": "\N{FULLWIDTH COMMERCIAL AT}SUM(A1)",
}


@pytest.mark.parametrize("name", FORMULAS.values(), ids=FORMULAS)
def test_no_cell_is_a_formula(name: str) -> None:
    line = ReviewLine(key=name, count=1, first_at=0, last_at=0, sources=1, targets=(name,))
    (row,) = rows(line)
    assert row["name"][0] in "'\N{REPLACEMENT CHARACTER}"
    assert row["targets"][0] in "'\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("name", ["x;=1+1;", 'x; "@SUM(A1)";', "x;;-1", "a;+1;=2"])
def test_no_cell_is_a_formula_where_semicolons_part_cells(name: str) -> None:
    """So do spreadsheets of most of Europe, quotes or none: a cell of ours begins elsewhere."""
    line = ReviewLine(key=name, count=1, first_at=0, last_at=0, sources=1, targets=(name,))
    text = "".join(lines_as_csv([line], Group.NAME))
    cells = [cell.strip(' "') for row in text.splitlines() for cell in row.split(";")]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []


@given(st.text(max_size=30))
def test_any_name_is_one_cell_of_one_row(name: str) -> None:
    line = ReviewLine(key=name, count=1, first_at=0, last_at=0, sources=1)
    text = "".join(lines_as_csv([line], Group.NAME))
    assert text.count("\n") == 2
    (row,) = rows(line)
    assert row["name"].replace("'", "") == printable(name).replace("'", "")
    assert row["name"].isprintable()


@given(st.text())
def test_what_is_printed_moves_no_cursor(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert shown.isprintable()


def test_a_report_as_an_object() -> None:
    found = Report(
        lines=(LINE,),
        more=3,
        totals=Totals(
            flows=12, subjects=2, targets=1, sources=2, gateways=1, first_at=0.0, last_at=None
        ),
        classes=(ClassCount(Class.MISSING_REQUIREMENT, 1, 12),),
    )
    page = json.loads(json.dumps(report_as_json(found, Group.NAME)))
    assert page["totals"] == {
        "flows": 12,
        "targets": 1,
        "sources": 2,
        "gateways": 1,
        "first_seen": "1970-01-01T00:00:00Z",
        "last_seen": None,
    }
    assert page["classes"] == {"missing requirement": {"lines": 1, "flows": 12}}
    assert (page["by"], page["more"], page["is_cut"]) == ("name", 3, False)
    assert [line["key"] for line in page["lines"]] == ["a.example"]
    assert page["lines"][0]["class"] == "missing requirement"


def test_stamps_are_whole_seconds_in_utc() -> None:
    assert stamp(1_790_035_200.999) == "2026-09-22T00:00:00Z"


def test_a_record_has_every_field_of_the_log() -> None:
    logged = json.loads(
        to_json_line(
            FlowRecord(
                0.0, "f", 1, Action.DENY, Reason.NO_SNI, Plane.EXPLICIT, "tls", "10.1.0.4", 443
            )
        )
    )
    record = StoredRecord(
        id=7,
        at=0.0,
        subject=subject(),
        flow_id="f",
        src_port=1,
        dst_ip=None,
        dialled_ip=None,
        tls_versions=(),
        destination_match="unknown",
        bytes_up=0,
        bytes_down=0,
        requests=0,
        duration_s=0.0,
        close_reason="",
        policy="",
        count=1,
    )
    page = record_as_json(record, LINE.finding)
    assert set(logged) - {"schema"} <= set(page)
    assert (page["id"], page["gateway"], page["class"]) == (7, "hub", "missing requirement")
    assert json.loads(json.dumps(page)) == page

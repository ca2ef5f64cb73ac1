from __future__ import annotations

import click

from egressproxy.cli.findings_page import findings_page, printable
from egressproxy.doctor.finding import fail, ok, warn


def test_page() -> None:
    found = [ok("nft", "1.0.6"), warn("clock", "off", "dates", "chronyc"), fail("x", "y", "z", "w")]
    assert [click.unstyle(line) for line in findings_page(found, "checks")] == [
        "ok    nft    1.0.6",
        "warn  clock  off",
        "      why  dates",
        "      fix  chronyc",
        "fail  x      y",
        "      why  z",
        "      fix  w",
        "",
        "checks: 3, 1 ok, 1 warn, 1 fail",
    ]


def test_nothing() -> None:
    assert list(findings_page([], "names")) == ["", "names: 0"]


def test_a_name_of_a_stranger_moves_no_cursor() -> None:
    assert printable("\x1b[2Ja\u202eb") == "\ufffd[2Ja\ufffdb"

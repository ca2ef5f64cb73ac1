"""``egressproxy flows``: what was allowed, with its octets and rules."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

import pytest
from click.testing import CliRunner

from egressproxy.cli import listing
from egressproxy.cli.flows import command
from egressproxy.cli.main import EXIT_DENY, EXIT_ERROR
from egressproxy.cli.store_option import STORE_VARIABLE
from egressproxy.observe.record import FlowRecord, Plane
from egressproxy.policy.verdict import Action, Pass, Reason
from egressproxy.review.bounds import Bounds
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

NOW: Final = 1_790_082_000.0  # 2026-09-22 13:00 UTC
ALLOW: Final = FlowRecord(
    NOW - 600,
    "0-f",
    40_000,
    Action.ALLOW,
    Reason.RULE,
    Plane.TRANSPARENT,
    "tls",
    "10.240.0.4",
    443,
    rule="aks/core#mcr",
    decided_by=Pass.APPLICATION,
    dst_ip="20.1.2.3",
    close_reason="client_closed",
)
RECORDS: Final = (
    ALLOW._replace(name="mcr.microsoft.com", count=30, bytes_up=50_000, bytes_down=7 << 30),
    ALLOW._replace(name="mcr.microsoft.com", src_ip="10.240.0.5", bytes_up=900),
    ALLOW._replace(name="api.partner.example", rule="rules/partner", time=NOW - 40_000, count=4),
    ALLOW._replace(name="slow.example", action=Action.ERROR, reason=Reason.DIAL_TIMEOUT, count=2),
    ALLOW._replace(name="audited.example", would_deny=True, reason=Reason.DEFAULT_DENY, rule=None),
    ALLOW._replace(name="denied.example", action=Action.DENY, reason=Reason.DEFAULT_DENY),
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "review.db"))
    with open_store(str(tmp_path / "review.db")) as store:
        Writer(store, gateway="hub-1", bounds=Bounds()).add(RECORDS)
    return tmp_path


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


PAGES: dict[str, tuple[int | None, tuple[str, ...]]] = {
    "flows-100.txt": (100, ()),
    "flows-160.txt": (160, ()),
    "flows-pipe.txt": (None, ()),
    "flows-rule.txt": (100, ("--group-by", "rule")),
}


@pytest.mark.parametrize(("name", "page"), PAGES.items(), ids=PAGES)
def test_golden(
    name: str,
    page: tuple[int | None, tuple[str, ...]],
    golden: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    width, arguments = page
    monkeypatch.setattr(listing, "terminal_width", lambda: width)
    golden(name, run(*arguments).output)


def test_what_failed_after_it_was_allowed_is_asked_for_by_its_reason() -> None:
    page = json.loads(run("--reason", "dial_timeout,dial_failed", "--json").stdout)
    assert [line["key"] for line in page["lines"]] == ["slow.example"]
    assert page["filter"].endswith("&action=allow&reason=dial_timeout&reason=dial_failed")


def test_denies_and_what_audit_let_pass_are_not_here() -> None:
    keys = [line["key"] for line in json.loads(run("--json").stdout)["lines"]]
    assert keys == ["mcr.microsoft.com", "api.partner.example", "slow.example"]
    assert json.loads(run("--json", "--sort", "last").stdout)["lines"][0]["class"] is None


def test_allows_have_no_classes() -> None:
    for arguments in (("--class", "unknown"), ("--sort", "class"), ("--group-by", "class")):
        run(*arguments, code=EXIT_ERROR)


def test_by_requirement() -> None:
    page = json.loads(run("--group-by", "requirement", "--json").stdout)
    assert {line["key"]: line["flows"] for line in page["lines"]} == {
        "aks/core": 33,
        "(no requirement)": 4,
    }


def test_exit_code() -> None:
    run("--exit-code", code=EXIT_DENY)
    run("--exit-code", "--name", "no.example")


def test_a_store_without_allows(place: Path) -> None:
    with open_store("denies.db") as store:
        Writer(store, gateway="hub-1", bounds=Bounds()).add(RECORDS[-1:])
    told = run("--store", "denies.db").stderr
    assert told.startswith("nothing was recorded as allowed: last 24 h, in denies.db\n")
    assert "hint: it holds no allowed flows at all; the gateway's option is --log-allows" in told

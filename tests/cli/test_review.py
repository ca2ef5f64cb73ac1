"""``egressproxy review``: logs of other gateways into a store, and what it holds."""

from __future__ import annotations

import gzip
import json
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from click.testing import CliRunner

from egressproxy.cli.main import EXIT_ERROR
from egressproxy.cli.review import command
from egressproxy.cli.store_option import STORE_VARIABLE
from egressproxy.errors import StoreError
from egressproxy.observe.record import FlowRecord, Plane, to_json_line
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review.bounds import Bounds
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

NOW: Final = 1_790_082_000.0  # 2026-09-22 13:00 UTC
DENY: Final = FlowRecord(
    NOW - 600, "f", 1, Action.DENY, Reason.DEFAULT_DENY, Plane.EXPLICIT, "tls", "10.1.0.4", 443
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setenv(STORE_VARIABLE, "review.db")
    lines = [to_json_line(DENY._replace(name=f"n{number}.example")) for number in range(3)]
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    (tmp_path / "b.gz").write_bytes(
        gzip.compress(b"junk\n" + to_json_line(DENY._replace(name="b.example", time=NOW - 9e6)))
    )
    return tmp_path


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def status(*arguments: str) -> dict[str, Any]:
    content = json.loads(run("status", "--json", *arguments).stdout)
    assert isinstance(content, dict)
    return content


def test_logs_of_a_fleet_make_one_store() -> None:
    one = run("import", "--gateway", "hub-1", "a.jsonl")
    assert one.output == "a.jsonl: 3 records read\n"
    two = run("import", "--gateway", "hub-2", "b.gz")
    assert two.stdout == "b.gz: 1 record read\n"
    assert two.stderr == "warning: b.gz: 1 line is no record (line 1)\n"
    found = {each["name"]: each for each in status()["gateways"]}
    assert (found["hub-1"]["denied"], found["hub-2"]["denied"]) == (3, 1)
    assert found["hub-1"]["last_seen"] == "2026-09-22T12:50:00Z"


def test_an_import_forgets_nothing(folder: Path) -> None:
    """A record of more than a hundred days ago stays: the gateway's settings say what goes."""
    run("import", "b.gz")
    run("import", "a.jsonl")
    assert status()["names_seen"] == 4
    assert sum(each["denied"] for each in status()["gateways"]) == 4


def test_a_file_that_grew_adds_what_is_new(folder: Path) -> None:
    run("import", "--gateway", "g", "a.jsonl")
    size = (folder / "a.jsonl").stat().st_size
    with (folder / "a.jsonl").open("ab") as file:
        file.write(to_json_line(DENY._replace(name="new.example")))
    done = run("import", "--gateway", "g", "a.jsonl")
    assert done.output.startswith("a.jsonl: 1 record read, ")
    assert done.output.endswith("known before\n")
    assert size > 1000
    assert status()["gateways"][0]["denied"] == 4


def test_what_can_be_read_is_read(folder: Path) -> None:
    done = run("import", "no.jsonl", "a.jsonl", code=EXIT_ERROR)
    assert "no.jsonl cannot be read: No such file or directory" in done.stderr
    assert done.stdout == "a.jsonl: 3 records read\n"
    (folder / "cut.gz").write_bytes((folder / "b.gz").read_bytes()[:-9])
    assert "damaged or not complete" in run("import", "cut.gz", code=EXIT_ERROR).stderr


def test_no_files_is_a_mistake() -> None:
    assert "Missing argument 'FILE...'" in run("import", code=EXIT_ERROR).output


def test_status_of_what_a_gateway_keeps() -> None:
    with open_store("review.db") as store:
        writer = Writer(store, gateway="hub-1", bounds=Bounds())
        writer.add(
            [
                DENY._replace(name="a.example", count=5, time=NOW - 7200),
                DENY._replace(name="b.example", action=Action.ALLOW, count=1234),
            ]
        )
        Writer(store, gateway="old-\x1b[31m", bounds=Bounds()).add(
            [DENY._replace(name="a.example", time=NOW - 90_000)]
        )
        writer.note_recording(since=NOW - 7200, allows="all")
    lines = run("status").output.splitlines()
    assert lines[0].startswith("review.db  SQLite, ")
    assert lines[1] == "3 combinations of client, target and verdict, 2 names ever seen"
    assert lines[2].startswith("single records since 2026-09-21T12:00:00Z")
    assert lines[4].split() == [
        "GATEWAY",
        "DENIED",
        "ALLOWED",
        "FIRST",
        "LAST",
        "ALLOWS",
        "RECORDED",
    ]
    assert lines[5].split() == [
        "hub-1",
        "5",
        "1,234",
        "2026-09-22T11:00:00Z",
        "2026-09-22T12:50:00Z",
        "all",
        "since",
        "2026-09-22T11:00:00Z",
    ]
    assert lines[6].startswith("old-\ufffd[31m")
    page = status()
    assert page["kind"] == "sqlite"
    assert page["records_since"] == "2026-09-21T12:00:00Z"
    assert page["gateways"][0]["allows_recorded"] == "all"
    assert page["gateways"][1]["allows_since"] is None


def test_status_of_nothing() -> None:
    with open_store("review.db"):
        pass
    assert run("status").output.splitlines()[1:] == ["no records yet"]
    assert status()["gateways"] == []
    with pytest.raises(StoreError, match=r"there is no review store at no\.db"):
        run("status", "--store", "no.db")

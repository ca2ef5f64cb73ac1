"""Where commands find records: a store, logs, the default, and what is said where there is none."""

from __future__ import annotations

import gzip
import io
import sys
from typing import TYPE_CHECKING, Final

import click
import pytest
from click.testing import CliRunner

from egressproxy.cli import store_option
from egressproxy.cli.store_option import STDIN, STORE_VARIABLE, Place, place_options
from egressproxy.errors import EgressproxyError, StoreError
from egressproxy.observe.record import FlowRecord, Plane, to_json_line
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review import queries
from egressproxy.review.bounds import Bounds
from egressproxy.review.model import Filter
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer

if TYPE_CHECKING:
    from pathlib import Path

NOW: Final = 1_790_035_200.0
DENY: Final = FlowRecord(
    NOW - 60, "f", 1, Action.DENY, Reason.DEFAULT_DENY, Plane.EXPLICIT, "tls", "10.1.0.4", 443
)


def lines(*names: str, at: float = NOW - 60) -> bytes:
    return b"".join(to_json_line(DENY._replace(name=name, time=at)) for name in names)


def found(place: Place, since: float | None = None) -> list[str]:
    with place.opened(now=NOW, since=since) as records:
        return queries.names(records.store, Filter(since=since))


@click.command()
@place_options
def _probe(*, place: Place) -> None:
    click.echo(f"{place.store} {[str(log) for log in place.logs]}")


def probe(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    result = CliRunner(env=env).invoke(_probe, arguments)
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(STORE_VARIABLE, raising=False)
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(lines(f"{name}.example"))
    return tmp_path


ACCEPTED: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "neither": ((), {}, "None []"),
    "a store": (("--store", "x.db"), {}, "x.db []"),
    "a store of the environment": ((), {STORE_VARIABLE: "y.db"}, "y.db []"),
    "a log": (("--log", "a.jsonl"), {}, "None ['a.jsonl']"),
    "logs as a shell expands them": (
        ("--log", "a.jsonl", "b.jsonl"),
        {},
        "None ['a.jsonl', 'b.jsonl']",
    ),
    "logs alone": (("a.jsonl", "b.jsonl"), {}, "None ['a.jsonl', 'b.jsonl']"),
    "stdin": (("--log", "-"), {}, "None ['-']"),
    "logs before the environment": (
        ("--log", "a.jsonl"),
        {STORE_VARIABLE: "y.db"},
        "y.db ['a.jsonl']",
    ),
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("arguments", "env", "place"), ACCEPTED.values(), ids=ACCEPTED)
def test_options(arguments: tuple[str, ...], env: dict[str, str], place: str) -> None:
    assert probe(*arguments, env=env) == (0, f"{place}\n")


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "both": (("--store", "x.db", "--log", "a.jsonl"), "--store and logs: give one of them"),
    "no such log": (("--log", "c/d.jsonl"), "there is no file 'c/d.jsonl'"),
    "a name for a file": (("mcr.microsoft.com",), "is --name mcr.microsoft.com meant?"),
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("arguments", "says"), REFUSED.values(), ids=REFUSED)
def test_refused(arguments: tuple[str, ...], says: str) -> None:
    code, output = probe(*arguments)
    assert code == 2
    assert says in output


def test_logs_plain_and_compressed(folder: Path) -> None:
    (folder / "c.gz").write_bytes(gzip.compress(lines("c.example")))
    place = Place(None, tuple(folder / name for name in ("a.jsonl", "b.jsonl", "c.gz")))
    assert found(place) == ["a.jsonl.example", "b.jsonl.example", "c.example"]


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(lines("piped.example"))))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert found(Place(None, (STDIN,))) == ["piped.example"]


def test_what_is_odd_in_a_log_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.jsonl").write_bytes(b"junk\n" + lines("a.example") + b"\xff\n{}\n")
    (folder / "empty").write_bytes(b"")
    (folder / "cut.gz").write_bytes(gzip.compress(lines("cut.example") * 50)[:-20])
    place = Place(None, (folder / "a.jsonl", folder / "empty", folder / "cut.gz"))
    assert "a.example" in found(place)
    warnings = capsys.readouterr().err.splitlines()
    assert warnings[0] == f"warning: {folder / 'a.jsonl'}: 3 lines are no records (line 1, 3, 4)"
    assert warnings[1] == f"warning: {folder / 'empty'}: no records in it"
    assert warnings[2].startswith(f"warning: {folder / 'cut.gz'}: damaged or not complete")


def test_older_records_of_a_log_are_counted_and_left(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(lines("old.example", at=NOW - 9 * 86400) + lines("a.example"))
    place = Place(None, (folder / "a.jsonl",))
    with place.opened(now=NOW, since=NOW - 86400) as records:
        assert records.skipped == 1
        assert queries.names(records.store, Filter()) == ["a.example"]
    assert found(place) == ["a.example", "old.example"]


def test_a_log_that_grows(folder: Path) -> None:
    log = folder / "a.jsonl"
    with Place(None, (log,)).opened(now=NOW, since=None) as records:
        with log.open("ab") as file:
            file.write(lines("grown.example"))
        records.refresh(NOW)
        assert queries.names(records.store, Filter()) == ["a.jsonl.example", "grown.example"]
        log.unlink()
        records.refresh(NOW)  # rotated away: nothing is new


def test_a_store_is_read_only(folder: Path) -> None:
    place = str(folder / "review.db")
    with open_store(place) as store:
        Writer(store, gateway="gw", bounds=Bounds()).add([DENY._replace(name="a.example")])
    assert found(Place(place, ())) == ["a.example"]
    with Place(place, ()).opened(now=NOW, since=None) as records, pytest.raises(StoreError):
        Writer(records.store, gateway="gw", bounds=Bounds()).add([DENY])


def test_the_default_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_option, "DEFAULT_STORE", folder / "review.db")
    monkeypatch.setattr(store_option, "DEFAULT_LOG", folder / "flows.jsonl")
    with pytest.raises(EgressproxyError, match="there is no review store") as caught:
        found(Place(None, ()))
    assert caught.value.hint.startswith("--log FILE reads a log without one")
    (folder / "flows.jsonl").write_bytes(b"")
    with pytest.raises(EgressproxyError) as caught:
        found(Place(None, ()))
    assert caught.value.hint.startswith(f"--log {folder / 'flows.jsonl'} reads")
    with open_store(str(folder / "review.db")) as store:
        Writer(store, gateway="gw", bounds=Bounds()).add([DENY._replace(name="a.example")])
    assert found(Place(None, ())) == ["a.example"]

"""Outlets under the recorder: opened or not, in trouble or not, what they lose counted once."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from egressproxy.errors import ServiceError
from egressproxy.export.outlet import AzureTarget, SyslogTarget, Target
from egressproxy.observe.cells import ExportKind
from egressproxy.observe.record import to_json_line
from egressproxy.service import exporting as module
from egressproxy.service.exporting import Exports
from egressproxy.service.journal import configure_journal
from egressproxy.service.recorder_messages import RecorderSpec
from tests.export.records import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from egressproxy.observe.record import FlowRecord

NOBODY = SyslogTarget("tcp", "127.0.0.1", 1)
RECORDS = [record(), record()]
LINES = [to_json_line(each) for each in RECORDS]


class Counts(Counter[ExportKind]):
    def export_lost(self, kind: ExportKind, records: int) -> None:
        self[kind] += records


class Sick:
    """An outlet that loses what a test says."""

    def __init__(self) -> None:
        self.lost = 0
        self.waiting = 0
        self.trouble = ""
        self.taken = 0
        self.reopened = 0
        self.may_close = threading.Event()
        self.may_close.set()

    def take(self, records: Sequence[FlowRecord]) -> None:
        self.taken += len(records)

    def reopen(self) -> None:
        self.reopened += 1

    def close(self) -> None:
        assert self.may_close.wait(20.0)
        self.lost += 1


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_journal(stream)
    yield stream
    structlog.reset_defaults()


@pytest.fixture
def sick(monkeypatch: pytest.MonkeyPatch) -> Sick:
    outlet = Sick()
    monkeypatch.setattr(module, "open_outlet", lambda *_, **__: outlet)
    return outlet


def exports_to(*targets: Target) -> tuple[Exports, Counts]:
    counts = Counts()
    spec = RecorderSpec(
        store=None,
        gateway="hub-1",
        max_age_days=30,
        max_bytes=1 << 30,
        allows="all",
        since=5.0,
        workers=1,
        exports=targets,
    )
    return Exports(spec, counts), counts


def lines_of(said: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.getvalue().splitlines()]


def test_every_outlet_gets_every_batch(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        path = tmp_path / "log"
        receiver.bind(str(path))
        receiver.settimeout(20.0)
        exports, counts = exports_to(
            AzureTarget(tmp_path / "azure"), SyslogTarget("unix", str(path))
        )
        exports.open(is_again=False)
        exports.take(RECORDS, LINES)
        messages = [receiver.recv(65536) for _ in RECORDS]
        exports.tend()
        exports.close()
    assert all(b" hub-1 egressproxy - default_deny " in message for message in messages)
    rows = (tmp_path / "azure" / "AZFWApplicationRule.json").read_text().splitlines()
    assert [json.loads(row)["Fqdn"] for row in rows] == ["evil.example"] * 2
    assert not counts


def test_losses_are_counted_once_and_with_those_of_the_end(sick: Sick, said: io.StringIO) -> None:
    exports, counts = exports_to(NOBODY)
    exports.open(is_again=False)
    sick.lost = 3
    exports.tend()
    exports.tend()
    assert counts == {ExportKind.SYSLOG: 3}
    exports.close()
    assert counts == {ExportKind.SYSLOG: 4}
    (line,) = lines_of(said)
    assert (line["event"], line["records"]) == ("records are not exported", 1)


def test_trouble_is_told_when_it_begins_and_when_it_ends(sick: Sick, said: io.StringIO) -> None:
    exports, _ = exports_to(NOBODY)
    exports.open(is_again=False)
    for sick.trouble, sick.lost in (("", 0), ("refused", 1), ("timed out", 5), ("", 5), ("", 5)):
        exports.tend()
    began, ended = lines_of(said)
    assert began["event"] == "an export fails, it is tried again"
    assert (began["to"], began["why"]) == ("syslog:tcp://127.0.0.1:1", "refused")
    assert (ended["event"], ended["lost"]) == ("an export works again", 5)


def test_one_that_cannot_be_opened_is_an_error_and_closes_the_others(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    exports, _ = exports_to(AzureTarget(tmp_path / "azure"), AzureTarget(tmp_path / "no" / "where"))
    with pytest.raises(ServiceError, match="cannot be opened"):
        exports.open(is_again=False)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_in_a_recorder_that_replaces_another_it_loses_until_it_can_be_opened(
    tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "later" / "azure"
    exports, counts = exports_to(AzureTarget(folder), AzureTarget(tmp_path / "well"))
    exports.open(is_again=True)
    exports.take(RECORDS, LINES)
    assert counts == {ExportKind.AZURE: 2}
    folder.parent.mkdir()
    exports.tend()
    assert not folder.exists(), "not before its time"
    monkeypatch.setattr(exports, "_retry_at", 0.0)
    exports.tend()
    exports.take(RECORDS, LINES)
    exports.tend()
    exports.close()
    assert counts == {ExportKind.AZURE: 2}
    for each, rows in ((folder, 2), (tmp_path / "well", 4)):
        assert (each / "AZFWApplicationRule.json").read_text().count("\n") == rows
    assert [line["event"] for line in lines_of(said)] == [
        "an export fails, it is tried again",
        "an export works again",
    ]


def test_files_are_opened_by_name_again(tmp_path: Path, sick: Sick) -> None:
    exports, _ = exports_to(NOBODY)
    exports.reopen()
    assert sick.reopened == 0
    exports.open(is_again=False)
    exports.reopen()
    assert sick.reopened == 1


def test_one_that_hangs_at_the_end_is_not_waited_for(
    sick: Sick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_S", 0.0)
    monkeypatch.setattr(module, "_GRACE_S", 0.01)
    sick.may_close.clear()
    sick.lost = 2
    exports, counts = exports_to(NOBODY)
    exports.open(is_again=False)
    exports.close()
    assert counts == {ExportKind.SYSLOG: 2}
    sick.may_close.set()

"""From lines to the store and the consumers, and how the process begins and ends."""

from __future__ import annotations

import os
import socket
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from egressproxy.errors import ServiceError, StoreError
from egressproxy.export.outlet import AzureTarget, OtlpTarget, Target
from egressproxy.observe.cells import ExportKind, ReviewCount
from egressproxy.observe.record import FlowRecord, Plane, to_json_line
from egressproxy.observe.tee import recorder_pipe
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review import schema
from egressproxy.review.store import open_store
from egressproxy.service import recorder as module
from egressproxy.service.exporting import Exports
from egressproxy.service.inbox import Inbox
from egressproxy.service.keeping import Keeper, NoStore
from egressproxy.service.messages import encode
from egressproxy.service.recorder import EXIT_FAULT, Recorder, keeper_of, open_writer, opening, run
from egressproxy.service.recorder_messages import (
    Opened,
    RecorderSpec,
    Refused,
    ReloadNote,
    ReopenNote,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RECORD = FlowRecord(
    1_790_000_000.25,
    "f",
    1,
    Action.DENY,
    Reason.DEFAULT_DENY,
    Plane.EXPLICIT,
    "tls",
    "10.1.0.4",
    443,
)


class Counts(Counter[ReviewCount | ExportKind]):
    def review(self, what: ReviewCount, number: int = 1) -> None:
        self[what] += number

    def export_lost(self, kind: ExportKind, records: int) -> None:
        self[kind] += records


class Listening:
    """A consumer that remembers."""

    def __init__(self) -> None:
        self.heard: list[tuple[str | None, bytes]] = []
        self.is_closed = False
        self.turns = 0
        self.reopened = 0

    def tend(self) -> None:
        self.turns += 1

    def reopen(self) -> None:
        self.reopened += 1

    def take(self, records: Sequence[FlowRecord], lines: Sequence[bytes]) -> None:
        self.heard += [(record.name, line) for record, line in zip(records, lines, strict=True)]

    def close(self) -> None:
        self.is_closed = True


def spec(store: object, *exports: Target) -> RecorderSpec:
    return RecorderSpec(
        store=None if store is None else str(store),
        gateway="gw-1",
        max_age_days=30,
        max_bytes=1 << 30,
        allows="1/10",
        since=5.0,
        workers=1,
        exports=exports,
    )


def answer_of(spec: RecorderSpec) -> Opened | Refused:
    counts = Counts()
    return opening(keeper_of(spec, counts), Exports(spec, counts), spec)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "review.db"


@pytest.fixture
def inbox() -> Inbox:
    """One whose pipe has ended after three lines, one of them no record."""
    reader, writer = recorder_pipe()
    lines = [to_json_line(RECORD._replace(name=name)) for name in ("a.example", "b.example")]
    os.write(writer, lines[0] + b'{"schema":1,"forged":true}\n' + lines[1])
    os.close(writer)
    ours, theirs = socket.socketpair()
    ours.close()
    return Inbox(reader, theirs)


def rows(place: Path) -> list[str | None]:
    with open_store(str(place), is_reader=True) as store, store.connect() as connection:
        joined = schema.record.join(
            schema.subject, schema.record.c.subject_id == schema.subject.c.id
        )
        asked = schema.subject.c.name
        return list(connection.execute(joined.select().with_only_columns(asked)).scalars())


def test_lines_become_rows_and_reach_consumers(inbox: Inbox, place: Path) -> None:
    counts, listening = Counts(), Listening()
    keeper = keeper_of(spec(place), counts)
    assert run(Recorder(inbox, keeper, counts, [listening]), inbox) == 0
    assert rows(place) == ["a.example", "b.example"]
    assert counts == {
        ReviewCount.STORED: 2,
        ReviewCount.NEW_NAMES: 2,
        ReviewCount.UNREADABLE: 1,
        ReviewCount.OVERFLOWED: 0,
    }
    assert [name for name, _ in listening.heard] == ["a.example", "b.example"]
    assert all(line.endswith(b"\n") for _, line in listening.heard)
    assert listening.is_closed
    assert listening.turns


def test_without_a_store_consumers_hear_all(inbox: Inbox) -> None:
    counts, listening = Counts(), Listening()
    keeper = keeper_of(spec(None), counts)
    assert isinstance(keeper, NoStore)
    assert run(Recorder(inbox, keeper, counts, [listening]), inbox) == 0
    assert [name for name, _ in listening.heard] == ["a.example", "b.example"]
    assert counts == {ReviewCount.UNREADABLE: 1}


def test_notes_go_where_they_belong(place: Path) -> None:
    counts, listening = Counts(), Listening()
    reader, writer = recorder_pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    note = ReloadNote(at=1.0, outcome="applied", digest="", previous="", report="{}")
    for each in (ReopenNote(), note):
        ours.send(encode(each))
    ours.close()
    os.close(writer)
    inbox = Inbox(reader, theirs)
    assert run(Recorder(inbox, keeper_of(spec(place), counts), counts, [listening]), inbox) == 0
    assert listening.reopened == 1
    with open_store(str(place), is_reader=True) as store, store.connect() as connection:
        assert connection.execute(schema.reload.select()).one().outcome == "applied"


def test_consumers_hear_what_a_failing_store_does_not(inbox: Inbox) -> None:
    def fail() -> None:
        raise StoreError("away")

    counts, listening = Counts(), Listening()
    keeper = Keeper(fail, counts)  # type: ignore[arg-type]
    assert run(Recorder(inbox, keeper, counts, [listening]), inbox) == 0
    assert len(listening.heard) == 2
    assert counts[ReviewCount.DROPPED] == 2


def test_one_that_is_far_behind_ends_in_time_and_counts_what_it_drops(
    inbox: Inbox, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST_S", -1.0)
    counts = Counts()
    keeper = keeper_of(spec(place), counts)
    inbox.fill()
    Recorder(inbox, keeper, counts).run()
    assert counts == {ReviewCount.DROPPED: 3}


def test_a_fault_ends_the_process_and_is_told(
    inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault() -> None:
        raise ZeroDivisionError

    counts = Counts()
    keeper = Keeper(fault, counts)  # type: ignore[arg-type]
    assert run(Recorder(inbox, keeper, counts), inbox) == EXIT_FAULT


def test_opening_notes_what_is_recorded_and_knows_the_past(place: Path) -> None:
    assert answer_of(spec(place)) == Opened(())
    keeper = Keeper(lambda: open_writer(spec(place), str(place)), Counts())
    keeper.note(ReloadNote(at=1.0, outcome="applied", digest="", previous="", report='{"a": 1}'))
    keeper.turn()
    assert answer_of(spec(place)) == Opened(('{"a": 1}',))
    with open_store(str(place), is_reader=True) as store, store.connect() as connection:
        assert connection.execute(schema.recording.select()).one() == ("gw-1", 5.0, "1/10")


@pytest.mark.parametrize(
    ("place", "code", "is_final"),
    [
        ("/nonexistent/review.db", "missing", True),
        ("/etc/passwd", "foreign", True),
        ("postgresql://u:secret@127.0.0.1:1/review", "store", False),
    ],
)
def test_a_store_that_cannot_be_had(place: str, code: str, is_final: bool) -> None:
    answer = answer_of(spec(place))
    assert isinstance(answer, Refused)
    assert (answer.code, answer.is_final) == (code, is_final)
    assert "secret" not in f"{answer} {spec(place)!r}"


def test_an_export_that_cannot_be_had(tmp_path: Path) -> None:
    """Nothing stays open, and the store, which is opened after it, is not made."""
    place = tmp_path / "review.db"
    bad = AzureTarget(tmp_path / "no" / "where")
    answer = answer_of(spec(place, OtlpTarget("http://127.0.0.1:9/v1/logs"), bad))
    assert isinstance(answer, Refused)
    assert (answer.code, answer.is_final) == (ServiceError.code, True)
    assert "AZFWApplicationRule.json cannot be opened" in answer.message
    assert answer.hint
    assert not place.exists()


def test_exports_without_a_store(tmp_path: Path) -> None:
    assert answer_of(spec(None, AzureTarget(tmp_path / "azure"))) == Opened(())
    assert (tmp_path / "azure" / "AZFWApplicationRule.json").exists()

"""Reading a log back by the line: plain, packed, unfinished, damaged, endless."""

from __future__ import annotations

import gzip
import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.observe.log_file import DAMAGED, STDIN, Lines, opened
from egressproxy.observe.record import MAX_LINE_BYTES, FlowRecord, Plane, to_json_line
from egressproxy.policy.verdict import Action, Reason

if TYPE_CHECKING:
    from pathlib import Path

RECORD = FlowRecord(
    1_790_000_000.0, "f", 1, Action.DENY, Reason.NO_SNI, Plane.EXPLICIT, "tls", "10.1.0.4", 443
)
LINE = to_json_line(RECORD)


def read(lines: Lines) -> list[bytes]:
    found: list[bytes] = []
    while line := lines.next():
        found.append(line)
    return found


def read_file(path: str) -> list[bytes]:
    with opened(path) as file:
        return read(Lines(file))


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_file_is_read_whatever_it_is_called(tmp_path: Path, is_packed: bool) -> None:
    path = tmp_path / "flows"
    path.write_bytes(gzip.compress(LINE * 3) if is_packed else LINE * 3)
    assert read_file(str(path)) == [LINE] * 3


@pytest.mark.parametrize("is_packed", [False, True])
def test_standard_input_stays_open(monkeypatch: pytest.MonkeyPatch, is_packed: bool) -> None:
    given_ = io.BytesIO(gzip.compress(LINE) if is_packed else LINE)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(given_))
    assert read_file(STDIN) == [LINE]
    assert not given_.closed


ENDS = {
    "nothing": (b"", []),
    "a whole line without its end": (LINE + LINE[:-1], [LINE, LINE[:-1]]),
    "a line that is being written": (LINE + LINE[:50], [LINE]),
    "an empty line": (b"\n" + LINE, [b"\n", LINE]),
}


@pytest.mark.parametrize(("content", "expected"), ENDS.values(), ids=ENDS)
def test_ends(content: bytes, expected: list[bytes]) -> None:
    assert read(Lines(io.BytesIO(content))) == expected


def test_of_an_endless_line_only_the_beginning_is_kept() -> None:
    content = LINE + b"x" * 1_000_000 + b"\n" + LINE
    lines = Lines(io.BytesIO(content))
    assert [len(line) for line in read(lines)] == [len(LINE), MAX_LINE_BYTES + 1, len(LINE)]
    assert (lines.number, lines.offset) == (3, len(content))


@given(st.lists(st.sampled_from([LINE, b"\n", b"no record\n", b"y" * 9000 + b"\n"]), max_size=9))
def test_going_on_at_an_offset_is_as_if_never_stopped(parts: list[bytes]) -> None:
    content = b"".join(parts)
    whole = Lines(io.BytesIO(content))
    while whole.next():
        later = Lines(io.BytesIO(content))
        later.skip_to(whole.offset)
        assert (later.number, later.offset) == (whole.number, whole.offset)
    short = Lines(io.BytesIO(content))
    short.skip_to(len(content) + 1)
    assert short.offset == len(content)


def test_a_damaged_file_says_so_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "flows.gz"
    path.write_bytes(gzip.compress(LINE * 2000)[:-20])
    with pytest.raises(DAMAGED):
        read_file(str(path))


def test_what_cannot_be_opened_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_file(str(tmp_path / "none"))

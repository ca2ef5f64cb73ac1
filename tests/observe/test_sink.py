from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.observe import sink as module
from egressproxy.observe.sink import FileSink, StreamSink

if TYPE_CHECKING:
    from pathlib import Path


def test_a_write_that_ends_halfway_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flows"
    sink = FileSink(path, 0, 5)
    assert sink.write(b"one\n") == b""
    real = os.write

    def half(fd: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", full)
        return real(fd, data[:5])

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    assert sink.write(b"two\nthree\n") == b"two\nthree\n"
    assert path.read_bytes() == b"one\n"
    monkeypatch.setattr(os, "write", real)
    assert sink.write(b"two\nthree\n") == b""
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    sink.close()


def test_a_rotation_that_is_not_allowed_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flows"
    sink = FileSink(path, 10, 5)

    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(type(path), "replace", refuse)
    for _ in range(4):
        assert sink.write(b"12345678\n") == b""
    assert path.read_bytes() == b"12345678\n" * 4
    monkeypatch.undo()
    assert sink.write(b"next\n") == b""
    assert path.read_bytes() == b"next\n"
    sink.close()


def test_a_line_above_the_size_has_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "flows"
    sink = FileSink(path, 10, 5)
    for line in (b"x" * 50 + b"\n", b"short\n", b"y" * 50 + b"\n"):
        assert sink.write(line) == b""
    sink.close()
    assert path.read_bytes() == b"y" * 50 + b"\n"
    assert path.with_name("flows.1").read_bytes() == b"short\n"
    assert path.with_name("flows.2").read_bytes() == b"x" * 50 + b"\n"


def test_a_closed_pipe_gives_everything_back() -> None:
    reader, writer = os.pipe()
    sink = StreamSink(writer)
    os.close(reader)
    assert sink.write(b"one\ntwo\n") == b"one\ntwo\n"
    sink.close()
    os.close(writer)


def test_a_full_pipe_gives_whole_lines_back() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    sink = StreamSink(writer)
    lines = b"".join(b"%07d\n" % number for number in range(20_000))
    rest = sink.write(lines)
    assert rest
    assert len(rest) % 8 == 0
    read = bytearray()
    while rest:
        read += os.read(reader, 65536)
        rest = sink.write(rest)
    sink.close()
    os.close(writer)
    while data := os.read(reader, 65536):
        read += data
    os.close(reader)
    assert bytes(read) == lines


@given(st.lists(st.integers(0, 6000), max_size=40))
def test_pieces_are_whole_lines_no_longer_than_the_kernel_keeps_together(sizes: list[int]) -> None:
    lines = [b"x" * size + b"\n" for size in sizes]
    pieces = list(module.pieces(b"".join(lines)))
    assert b"".join(pieces) == b"".join(lines)
    for piece in pieces:
        assert piece.endswith(b"\n")
        assert len(piece) <= select.PIPE_BUF or piece.count(b"\n") == 1

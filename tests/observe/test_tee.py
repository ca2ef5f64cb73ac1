"""Every line reaches the recorder's pipe whole, or is counted as dropped; nobody waits."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.observe.tee import PIPE_BYTES, Tee, recorder_pipe

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITER = """
import sys
from egressproxy.observe.tee import Tee
tee, name = Tee(int(sys.argv[1])), sys.argv[2]
dropped = 0
for number in range(400):
    dropped += tee.write(b"".join(b"%s-%d %s\\n" % (name.encode(), number, b"x" * size)
                                  for size in (1, 700, 3000)))
print(dropped)
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, Tee]]:
    reader, writer = recorder_pipe()
    tee = Tee(writer)
    yield reader, tee
    os.close(reader)
    tee.close()


def read_all(reader: int) -> bytes:
    found = b""
    while True:
        try:
            part = os.read(reader, 1 << 20)
        except BlockingIOError:
            return found
        found += part


def test_the_pipe_is_large_and_never_waits(pipe: tuple[int, Tee]) -> None:
    reader, _ = pipe
    assert fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ) in (PIPE_BYTES, 65536)
    assert not os.get_inheritable(reader)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)


def test_what_fits_arrives(pipe: tuple[int, Tee]) -> None:
    reader, tee = pipe
    assert tee.write(b"") == 0
    assert tee.write(b"one\ntwo\n") == 0
    assert read_all(reader) == b"one\ntwo\n"


def test_what_does_not_fit_is_dropped_by_whole_lines_and_counted(pipe: tuple[int, Tee]) -> None:
    reader, tee = pipe
    line = b"y" * 999 + b"\n"
    dropped = sum(tee.write(line * 128) for _ in range(20))
    taken = read_all(reader)
    assert dropped > 0
    assert set(taken.splitlines(keepends=True)) == {line}
    assert taken.count(b"\n") + dropped == 20 * 128
    assert tee.write(line) == 0, "there is room again"


@given(st.lists(st.integers(0, 4095), max_size=600))
def test_dropped_and_taken_are_all(sizes: list[int]) -> None:
    reader, writer = recorder_pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 65536)
    tee = Tee(writer)
    lines = [b"%d" % number + b"z" * (size - 5) + b"\n" for number, size in enumerate(sizes)]
    dropped = tee.write(b"".join(lines))
    assert read_all(reader) == b"".join(lines[: len(lines) - dropped])
    os.close(reader)
    tee.close()


def test_without_a_reader_all_is_dropped() -> None:
    reader, writer = recorder_pipe()
    os.close(reader)
    tee = Tee(writer)
    assert tee.write(b"one\ntwo\n") == 2
    tee.close()


def test_lines_of_processes_do_not_mix() -> None:
    reader, writer = recorder_pipe()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(writer), name],
            pass_fds=[writer],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    os.close(writer)
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb") as file:
        found = file.readlines()
    dropped = [int(each.communicate(timeout=30)[0]) for each in writers]
    assert all(line.strip(b"x\n").partition(b" ")[2] == b"" for line in found)
    assert {len(line.partition(b" ")[2]) for line in found} <= {2, 701, 3001}
    assert len(found) + sum(dropped) == 2 * 400 * 3

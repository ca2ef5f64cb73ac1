from __future__ import annotations

import os
from pathlib import Path

import pytest

from egressproxy.kernel.splice import PIPE_BYTES, PipePool


def test_pipes_are_large_lent_up_to_the_limit_and_used_again() -> None:
    pool = PipePool(limit=2, spare=1)
    one, two = pool.take(), pool.take()
    assert one is not None
    assert two is not None
    assert pool.take() is None
    assert pool.lent == 2
    assert os.write(one.write, bytes(PIPE_BYTES)) == PIPE_BYTES
    with pytest.raises(BlockingIOError):
        os.write(one.write, b"x")
    pool.give_back(one, empty=False)  # its bytes are nobody else's: closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(one.read)
    pool.give_back(two)
    assert pool.take() == two
    assert pool.lent == 1
    pool.give_back(two)
    pool.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(two.read)


def test_no_more_than_the_spare_are_kept() -> None:
    pool = PipePool(limit=3, spare=1)
    pipes = [pool.take() for _ in range(3)]
    for pipe in pipes:
        assert pipe is not None
        pool.give_back(pipe)
    assert pool.lent == 0
    kept = [pipe for pipe in pipes if pipe and Path(f"/proc/self/fd/{pipe.read}").exists()]
    assert len(kept) == 1
    pool.close()


def test_without_descriptors_there_is_no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pipe(_flags: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", no_pipe)
    pool = PipePool()
    assert pool.take() is None
    assert pool.lent == 0

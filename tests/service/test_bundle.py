"""Chunks in a memfd."""

from __future__ import annotations

import os

import pytest

from egressproxy.service.bundle import pack_chunks, unpack_chunks


@pytest.mark.parametrize(
    "chunks",
    [[], [b""], [b"a"], [b"", b"abc", b""], [bytes([n]) * n * 999 for n in range(60)]],
    ids=["none", "empty", "one", "empties", "many"],
)
def test_round_trip_twice(chunks: list[bytes]) -> None:
    fd = pack_chunks(chunks)
    try:
        assert list(unpack_chunks(fd)) == chunks
        assert list(unpack_chunks(fd)) == chunks, "a later worker reads it again"
    finally:
        os.close(fd)


def test_nobody_can_change_it() -> None:
    fd = pack_chunks([b"policy"])
    try:
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)

"""CPUs by affinity and by container quota."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from egressproxy.service.cpus import usable_cpus

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("max 100000\n", 64),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("9900000 100000\n", 64),
        ("0 100000\n", 1),
        ("100000 0\n", 64),
        ("nonsense", 64),
        ("", 64),
    ],
)
def test_quota(
    content: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    path = tmp_path / "cpu.max"
    path.write_text(content)
    assert usable_cpus(path) == expected


def test_no_quota_file(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path / "none") == len(os.sched_getaffinity(0))

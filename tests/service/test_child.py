"""A process beside the supervisor: started, ended, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from egressproxy.service.child import Child, exit_text
from tests.service.running import poll

PARENT = """
import asyncio, os, sys
from egressproxy.service.child import Child
async def main():
    Child("tests.service.orphan", [sys.argv[1], sys.argv[2]])
    await asyncio.sleep(60)
asyncio.run(main())
"""
ROOT = Path(__file__).parents[2]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.anyio
async def test_it_ends_by_itself_or_is_ended() -> None:
    before = open_descriptors()
    child = Child("json.tool", ["--no-such-option"])
    assert await child.exited == 2
    child.kill()  # harmless now
    reader, writer = os.pipe()
    child = Child("json.tool", [f"/dev/fd/{reader}"], [reader])
    child.send(signal.SIGTERM)
    assert await child.exited == -signal.SIGTERM
    for fd in (reader, writer):
        os.close(fd)
    assert open_descriptors() == before


@pytest.mark.anyio
async def test_what_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    with pytest.raises(FileNotFoundError):
        Child("json.tool", [])
    await asyncio.sleep(0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_hears_of_its_parent_s_death(number: signal.Signals, tmp_path: Path) -> None:
    file = tmp_path / "said"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(file), str(int(number))], cwd=ROOT)
    try:
        poll("the child is ready", lambda: file.exists() and file.read_text().endswith("ready\n"))
        child = int(file.read_text().split()[0])
    finally:
        parent.kill()
        parent.wait()
    poll("the child is gone", lambda: not Path(f"/proc/{child}").exists())
    assert file.read_text().endswith("told\n") is (number is signal.SIGTERM)


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "exit status 0"), (70, "exit status 70"), (-9, "SIGKILL"), (-250, "signal 250")],
)
def test_exit_text(code: int, text: str) -> None:
    assert exit_text(code) == text

"""The view of a machine: what is missing is nothing, what is large is cut, odd is no number."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from egressproxy.doctor import machine as module
from egressproxy.doctor.machine import Machine, run_program
from tests.doctor.machines import machine


def test_files(tmp_path: Path) -> None:
    seen = machine(tmp_path, {"a": " x \n", "n": "5\n", "two": "1\t2", "odd": "1 x", "raw": "é"})
    assert (seen.text("a"), seen.text("none"), seen.text("raw")) == ("x", "", "é")
    assert (seen.number("n"), seen.number("two"), seen.number("none")) == (5, None, None)
    assert (seen.numbers("two"), seen.numbers("odd"), seen.numbers("none")) == ((1, 2), (), ())
    assert seen.entries(".") == ["a", "n", "odd", "raw", "two"]
    assert seen.entries("none") == []


def test_a_file_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 2 * 65536)
    assert len(machine(tmp_path, {"big": "x" * 400_000}).text("big")) == 2 * 65536


def test_this_machine() -> None:
    here = Machine()
    assert here.sysctl("net.ipv4.ip_forward") in (0, 1)
    assert here.sysctl("net.ipv4.no_such_thing") is None
    own = next(each for each in here.processes() if each.pid == os.getpid())
    assert "pytest" in own.command
    with socket.socket() as sock:
        inode = Path(f"/proc/self/fd/{sock.fileno()}").stat().st_ino
        assert inode in here.sockets_of(os.getpid())
    assert here.sockets_of(2**30) == frozenset()


def test_programs() -> None:
    assert run_program(("echo", "yes")) == "yes\n"
    assert run_program(("false",)) is None
    assert run_program(("no-such-program-here",)) is None

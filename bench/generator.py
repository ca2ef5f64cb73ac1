"""The load generator made ready in a folder: compiled, its ClientHellos beside it."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.hello import client_hello

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE: Final = Path(__file__).with_name("load.c")


def build_load(directory: Path, hellos: Mapping[str, str]) -> Path:
    """Compile ``load`` into the folder, and write a ClientHello ``KEY.hello`` for each name."""
    load = directory / "load"
    subprocess.run(["cc", "-O2", "-o", str(load), str(SOURCE)], check=True)
    for key, name in hellos.items():
        (directory / f"{key}.hello").write_bytes(client_hello(name))
    return load


def raise_open_files() -> int:
    """Let this process, and what it starts, have as many open files as it may; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard

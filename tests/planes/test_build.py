"""The compiled flow path is the same code: it passes the tests of the interpreted one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from egressproxy.planes.build import FlowPath, flow_path

ROOT = Path(__file__).resolve().parents[2]
TESTS = (
    "tests/kernel/test_destination.py",
    "tests/kernel/test_sockets.py",
    "tests/observe",
    "tests/planes",
    "tests/policy/test_decide.py",
    "tests/policy/test_memo.py",
    "tests/policy/test_ruleset.py",
    "tests/resolve",
    "tests/wire/test_client_hello.py",
    "tests/wire/test_client_hello_mitmproxy.py",
)


@pytest.mark.interpreted
def test_an_editable_install_is_interpreted() -> None:
    assert flow_path() is FlowPath.INTERPRETED


@pytest.mark.interpreted
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_compiled_flow_path_passes_the_same_tests() -> None:
    """``interpreted`` are those that replace what compiled code has bound."""
    subprocess.run(["make", "native"], cwd=ROOT, check=True, capture_output=True)
    native = ROOT / ".native"
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(native)}
    asked = [sys.executable, "-c", "from egressproxy.planes.build import *; print(flow_path())"]
    told = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "compiled"
    paths = ["-o", f"pythonpath={native} {ROOT}", "-p", "no:cacheprovider"]
    argv = [sys.executable, "-m", "pytest", "-q", "-m", "not interpreted", *paths, *TESTS]
    done = subprocess.run(
        argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) passed", done.stdout)
    assert found
    assert int(found[1]) > 900

"""Closed standard streams, in processes of their own: ``>&-``, or a sloppy service manager."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

POLICY = """\
version: 1
cloud: AzureCloud
rules: [{name: up, to: [up.test], ports: [https]}]
"""


def test_with_closed_streams_it_serves_and_workers_see_null(tmp_path: Path) -> None:
    """A number that is free gets a socket or an epoll, which then is stdout to whoever prints."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    command = (
        f'exec "$0" -m egressproxy run --policy {policy} --log {tmp_path}/log --admin none'
        " --workers 1 --explicit 127.0.0.1:0 <&- >&-"
    )
    with subprocess.Popen(["sh", "-c", command, sys.executable], stderr=subprocess.PIPE) as process:
        assert process.stderr
        try:
            lines = []
            for line in process.stderr:
                lines.append(json.loads(line))
                if lines[-1]["event"] == "ready":
                    break
            (worker,) = [line["pid"] for line in lines if line["event"] == "worker serves"]
            for fd in range(2):
                assert Path(f"/proc/{worker}/fd/{fd}").readlink() == Path(os.devnull)
        finally:
            process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_records_to_a_closed_stdout_are_refused(tmp_path: Path) -> None:
    """Else the deny log would go to whatever got the number 1: a socket, an epoll."""
    policy = tmp_path / "policy.yaml"
    command = f'exec "$0" -m egressproxy run --policy {policy} --explicit 127.0.0.1:0 >&-'
    process = subprocess.run(
        ["sh", "-c", command, sys.executable],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    assert process.returncode == 2
    assert b"flow records go to stdout, which is closed (hint: --log FILE)" in process.stderr

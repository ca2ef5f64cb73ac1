"""The limit of open files, set in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from egressproxy.service.file_limit import raise_file_limit
from egressproxy.service.journal import configure_journal
configure_journal()
soft, hard, flows, uid = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
if uid:
    import os
    os.setuid(uid) if os.geteuid() == 0 else None
raise_file_limit(flows)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "flows", "expected", "warns"),
    [
        (500, 5000, 100, "1224 5000", False),
        (4000, 5000, 100, "4000 5000", False),
        (500, 1000, 100, "1000 1000", True),
    ],
    ids=["raised", "enough", "hard limit"],
)
def test_limit(soft: int, hard: int, flows: int, expected: str, warns: bool) -> None:
    argv = [sys.executable, "-c", SCRIPT, *map(str, (soft, hard, flows, 65534))]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == expected
    assert ("LimitNOFILE" in done.stderr) is warns

"""The last scene of the demo: its own flow log, read by ``egressproxy denies``."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from lab.stage import Stage

_TIMEOUT_S: Final = 60.0


def show(stage: Stage, log: Path, policy: Path) -> None:
    """Run it on the demo's own stdout, so that it looks as it does for its user."""
    command = ("egressproxy", "denies", "--log", log.name, "--policy", policy.name)
    stage.command(command)
    stage.say("")
    stage.console.file.flush()
    argv = (*command[:3], str(log), command[4], str(policy))
    done = subprocess.run(
        (sys.executable, "-m", *argv), stderr=subprocess.STDOUT, timeout=_TIMEOUT_S
    )
    stage.say("")
    stage.check(
        done.returncode == 0, "the deny log is reviewed", f"it ended with {done.returncode}"
    )

"""A child that waits for its parent's death: ``python -m tests.service.orphan FILE SIGNAL PARENT``.

It writes its pid and ``ready`` to the file, and ``told`` where the signal can be caught.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from egressproxy.service.child import end_with_parent


def main() -> None:
    file, number, parent = Path(sys.argv[1]), signal.Signals(int(sys.argv[2])), int(sys.argv[3])
    if number is not signal.SIGKILL:
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    end_with_parent(parent, number)
    file.write_text(f"{os.getpid()} ready\n")
    while True:
        signal.sigwait({signal.SIGTERM})
        file.write_text(f"{os.getpid()} told\n")
        sys.exit(0)


if __name__ == "__main__":
    main()

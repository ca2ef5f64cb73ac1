"""Imported by every Python process that has this folder on its path: tells what only it can know.

Each second a thread writes ``PID`` in the folder ``SOAK_PROBE``: the number of asyncio tasks and of
memory blocks that the interpreter holds (``sys.getallocatedblocks``). The blocks tell a leak of a
single object, which the kernel's figures, in pages, would show only after thousands.
"""

import os
import sys
import threading
import time
from asyncio import tasks
from pathlib import Path
from typing import Any


def _tell(folder: Path) -> None:
    # The set itself: `all_tasks` would look at each task, from another thread than theirs.
    living: Any = getattr(tasks, "_all_tasks" if sys.version_info < (3, 12) else "_scheduled_tasks")
    own = folder / str(os.getpid())
    draft = own.with_suffix(".draft")
    while folder.is_dir():
        draft.write_text(f"{len(living)} {sys.getallocatedblocks()}")
        draft.replace(own)
        time.sleep(1)


if "SOAK_PROBE" in os.environ:
    _folder = Path(os.environ["SOAK_PROBE"])
    threading.Thread(target=_tell, args=(_folder,), name="soak-probe", daemon=True).start()

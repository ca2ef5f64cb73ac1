"""How many CPUs this process may use: by its affinity and by the quota of its container."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")
"""``$QUOTA $PERIOD`` in microseconds, or ``max $PERIOD`` (Linux, cgroup-v2, "CPU Interface Files").

Inside a container it is the container's own.
"""


def usable_cpus(cpu_max: Path = CPU_MAX) -> int:
    """At least 1; a part of a CPU counts as one."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        return max(1, min(cpus, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # no such file, "max", another cgroup version
        return cpus

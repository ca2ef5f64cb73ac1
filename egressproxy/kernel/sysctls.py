"""The sysctls that a gateway needs: set, compared, and put back as they were.

Order for who brings the gateway up: guard, table, sysctls. Forwarding is the last word, and
nf_conntrack's sysctls exist only once the table has loaded it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from egressproxy.kernel.host_state import DEFAULT_STATE

PROC: Final = Path("/proc/sys")


@dataclass(frozen=True, slots=True)
class Difference:
    """A sysctl that is not as it has to be; ``now`` is empty where this kernel does not have it."""

    name: str
    wanted: str
    now: str


def ensure_sysctls(state: Path = DEFAULT_STATE, *, proc: Path = PROC) -> tuple[str, ...]:
    """Remember the values as they are, then set ours; returns the names that were changed.

    What is remembered already stays: a second call, or one after a crash, loses nothing. Optional
    ones that this kernel does not have are left out.

    Raises:
        KernelError: one cannot be set (read-only in most containers), or the state file cannot be
            written; then nothing was set.
    """
    raise NotImplementedError


def restore_sysctls(state: Path = DEFAULT_STATE, *, proc: Path = PROC) -> tuple[str, ...]:
    """Put back what is remembered, then forget it; returns the names that were changed.

    Raises:
        KernelError: some could not be put back; all were tried, and the file is kept.
    """
    raise NotImplementedError


def sysctl_differences(*, proc: Path = PROC) -> tuple[Difference, ...]:
    """What is not as ``ensure_sysctls`` would have it; empty while all is well."""
    raise NotImplementedError

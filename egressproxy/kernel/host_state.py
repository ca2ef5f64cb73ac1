"""What the machine was like before us: one small file that outlives a crash, and one owner.

The file lies on a tmpfs, so it is gone with what it describes when the machine restarts; one of
another boot counts as none. (With systemd: RuntimeDirectoryPreserve=yes.)
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_STATE: Final = Path("/run/egressproxy/state.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """``sysctls``: name below /proc/sys to its value before us.

    ``fingerprint`` is that of the table (``nft_apply.TableState``) as it was applied last.
    """

    sysctls: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""


def read_state(path: Path = DEFAULT_STATE) -> HostState:
    """What is remembered; an empty state where there is no file, or one of another boot.

    Raises:
        KernelError: the file is not ours, not readable, or of another network namespace.
    """
    raise NotImplementedError


def write_state(state: HostState, path: Path = DEFAULT_STATE) -> None:
    """Replace the file in one step; its folder is made with mode 0700.

    Raises:
        KernelError: it cannot be written.
    """
    raise NotImplementedError


def forget_state(path: Path = DEFAULT_STATE) -> None:
    """Remove the file; that there is none is no error.

    Raises:
        KernelError: it cannot be removed.
    """
    raise NotImplementedError


@contextmanager
def owned(path: Path = DEFAULT_STATE) -> Iterator[None]:
    """Be the one that owns this machine's firewall, until the block or the process ends.

    ``up`` holds it while it runs, ``down`` takes it first: a lock beside the state file.

    Raises:
        KernelError: another process has it; ``code`` is ``busy``.
    """
    raise NotImplementedError
    yield

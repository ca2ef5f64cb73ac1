"""The clock: what the kernel says of its own synchronisation (adjtimex(2)); no network is asked.

Rules and audit end by date, certificates are checked by ``probe``, and a deny log is read beside
other logs. In an Azure VM chrony keeps the host's time (/dev/ptp_hyperv), without any server.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from egressproxy.doctor.finding import fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.doctor.finding import Finding
    from egressproxy.doctor.machine import Machine
    from egressproxy.doctor.plan import Plan

TIME_ERROR: Final = 5  # linux/timex.h: the clock is not synchronised
MAX_ERROR_S: Final = 1.0
SLACK_S: Final = 300.0
_FIX: Final = (
    "systemctl enable --now chrony   # chronyc tracking; Azure: refclock PHC /dev/ptp_hyperv"
)


class _Timex(ctypes.Structure):
    """The head of ``struct timex``; the kernel writes some 200 octets."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 400),
    )


@dataclass(frozen=True, slots=True)
class ClockState:
    """``max_error_s`` is the kernel's bound on how wrong the clock is."""

    is_synchronised: bool
    max_error_s: float


def read_clock() -> ClockState | None:
    """What the kernel says; ``None`` where it may not be asked (some containers)."""
    timex = _Timex()  # modes 0: nothing is set, and no privilege needed
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if state < 0:
        return None
    return ClockState(state != TIME_ERROR, timex.maxerror / 1e6)


def check_clock(machine: Machine, plan: Plan, state: ClockState | None) -> Iterator[Finding]:
    """Synchronised, and not before what was written on this machine."""
    now = machine.now()
    shown = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    newest = (
        max((_written(path) for path in plan.policy.files), default=0.0) if plan.policy else 0.0
    )
    if newest > now + SLACK_S:
        yield fail(
            "clock",
            f"{shown}, which is {newest - now:,.0f} s before the policy was written",
            "rules expire by this clock, and it is wrong",
            _FIX,
        )
    elif state is None:
        yield warn("clock", f"{shown}; the kernel does not say whether it is right", _WHY, _FIX)
    elif not state.is_synchronised:
        yield warn("clock", f"{shown}, not synchronised", _WHY, _FIX)
    elif state.max_error_s > MAX_ERROR_S:
        seen = f"{shown}, wrong by up to {state.max_error_s:.1f} s"
        yield warn("clock", seen, _WHY, "chronyc tracking; chronyc sources")
    else:
        yield ok("clock", f"{shown}, within {state.max_error_s:.3f} s")


_WHY: Final = "rules and audit end by date, and the deny log is read beside other logs"


def _written(path: os.PathLike[str]) -> float:
    try:
        return os.stat(path).st_mtime  # noqa: PTH116 - any path-like
    except OSError:
        return 0.0

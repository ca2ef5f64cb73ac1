"""``Beat``: a timer that an epoll can watch, ``timerfd_create(2)``; ``os`` has it from 3.13 on."""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress
from typing import Final

_NS: Final = 1_000_000_000
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK and TFD_CLOEXEC are these

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


class Beat:
    """Readable once every ``period_s`` while it runs; who is late hears one beat, not many.

    Raises:
        OSError: no descriptor is left.
    """

    def __init__(self, period_s: float) -> None:
        period = _Timespec(*divmod(round(period_s * _NS), _NS))
        self._running = _Itimerspec(period, period)
        self._stopped = _Itimerspec()
        self.fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, _FLAGS)
        if self.fd < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    def start(self) -> None:
        """Beat, for the first time after one period."""
        _libc.timerfd_settime(self.fd, 0, ctypes.byref(self._running), None)

    def stop(self) -> None:
        """Beat no more."""
        _libc.timerfd_settime(self.fd, 0, ctypes.byref(self._stopped), None)

    def hear(self) -> None:
        """Take the beat, which lets the next one come."""
        with suppress(BlockingIOError):  # stopped meanwhile
            os.read(self.fd, 8)

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self.fd)

"""A process of our own beside the supervisor: exec'd, watched, tied to the supervisor's life.

It is exec'd, never forked from a running loop. Its exit is seen through a pidfd (pidfd_open(2)), so
that no child watcher, thread or SIGCHLD handler is needed; the pid cannot be taken over by another
process until the exit has been read.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from collections.abc import Sequence

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


class Child:
    """A started process. ``exited`` is done, with the return code, once it has ended.

    Construct on the loop's own thread: the kernel ties the child's life to the thread that started
    it (PR_SET_PDEATHSIG).

    Args:
        module: run as ``python -m``, by the interpreter of this process.
        arguments: its command line; our pid comes behind them.
        descriptors: inherited under the numbers that they have here.

    Raises:
        OSError: no process or descriptor is to be had.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], descriptors: Sequence[int] = ()
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = _start(module, arguments, descriptors)
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._ended)

    @property
    def pid(self) -> int:
        """The process id, valid until ``exited`` is done."""
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal; harmless when the process has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        """End the process at once; harmless when it has ended."""
        self.send(signal.SIGKILL)

    def _ended(self) -> None:
        code = self._process.poll()
        if code is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        if not self.exited.done():
            self.exited.set_result(code)


def exit_text(code: int) -> str:
    """A return code in words: ``exit status 2``, ``SIGKILL``."""
    if code >= 0:
        return f"exit status {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def end_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when its parent dies, however that happens.

    prctl(2), PR_SET_PDEATHSIG. To be called by the child, with the pid that it was given. The end
    of a socket tells the same, but not to a process that is stopped or hangs, and its listeners
    would keep their share of new connections.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        journal().warning("no parent-death signal", error=os.strerror(ctypes.get_errno()))
    if os.getppid() != parent:  # it died before the call
        sys.exit(0)


def _start(
    module: str, arguments: Sequence[str], descriptors: Sequence[int]
) -> subprocess.Popen[bytes]:
    # -m puts the working directory on the path; only where the supervisor has it there, too.
    same_path = [] if {"", str(os.getcwd())} & set(sys.path) else ["-P"]  # noqa: PTH109 - a text
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, *same_path, "-m", module, *arguments, str(os.getpid())],
        stdin=subprocess.DEVNULL,
        pass_fds=tuple(descriptors),
    )

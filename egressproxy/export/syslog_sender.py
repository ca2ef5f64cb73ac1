"""``SyslogSender``: messages to a receiver, from a thread of its own that reconnects by itself."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from egressproxy.export.outlet import CLOSE_S, MAX_WAITING
from egressproxy.export.syslog_connection import SyslogConnection
from egressproxy.export.syslog_message import SyslogFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.export.outlet import SyslogTarget
    from egressproxy.observe.record import FlowRecord

_FIRST_PAUSE_S: Final = 0.5
_MAX_PAUSE_S: Final = 30.0


class SyslogSender:
    """An ``Outlet``.

    Datagrams (udp, unix) are one message each and go once; a stream's message that may have been
    cut off is sent again on the next connection.

    Args:
        target: the receiver.
        gateway: HOSTNAME of the messages.
        version: of this software.

    Raises:
        ServiceError: a file that TLS needs cannot be read.
    """

    def __init__(self, target: SyslogTarget, gateway: str, version: str) -> None:
        self.lost = 0
        self.trouble = ""
        self._connection = SyslogConnection(target)
        self._format = SyslogFormat(gateway, version)
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._deadline = float("inf")
        self._pause_s = _FIRST_PAUSE_S
        self._thread = threading.Thread(target=self._run, name="syslog", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Messages that are not sent yet."""
        return len(self._waiting)

    def take(self, records: Sequence[FlowRecord]) -> None:
        """Queue a message for each record; beyond ``MAX_WAITING`` the new ones are lost."""
        with self._changed:
            for record in records:
                if len(self._waiting) >= MAX_WAITING or self._is_closing:
                    self.lost += 1
                    self._format.skip()
                else:
                    self._waiting.append(self._format.message(record))
            self._changed.notify()

    def reopen(self) -> None:
        """Nothing to do: there is no file."""

    def close(self) -> None:
        """Send what waits, ``CLOSE_S`` at most; the rest is lost."""
        with self._changed:
            self._is_closing = True
            self._deadline = time.monotonic() + CLOSE_S
            self._changed.notify()
        self._thread.join(CLOSE_S)
        with self._changed:
            self.lost += len(self._waiting)
            self._waiting.clear()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                if self._is_over():
                    break
                message = self._waiting[0]
            if self._send(message):
                with self._changed:
                    if self._waiting:  # else it was given up as lost meanwhile
                        self._waiting.popleft()
                self._pause_s = _FIRST_PAUSE_S
            else:
                self._rest()
        self._connection.close()

    def _is_over(self) -> bool:
        is_late = time.monotonic() >= self._deadline
        return self._is_closing and (not self._waiting or is_late)

    def _rest(self) -> None:
        """Wait before another try, until told to end."""
        with self._changed:
            pause_s = min(self._pause_s, max(0.0, self._deadline - time.monotonic()))
            self._changed.wait_for(self._is_over, timeout=pause_s)
        self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)

    def _send(self, message: bytes) -> bool:
        try:
            self._connection.send(message)
        except OSError as error:  # ssl.SSLError and socket.gaierror are among them
            self._connection.close()
            self.trouble = str(error) or type(error).__name__
            return False
        self.trouble = ""
        return True

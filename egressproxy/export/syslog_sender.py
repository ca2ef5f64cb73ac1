"""``SyslogSender``: messages to a receiver, from a thread of its own that reconnects by itself."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from egressproxy.export.syslog_message import SyslogFormat, octet_counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.export.outlet import SyslogTarget
    from egressproxy.observe.record import FlowRecord

MAX_WAITING: Final = 10_000
"""Messages kept while the receiver is away: about 10 MB."""

CONNECT_S: Final = 5.0
CLOSE_S: Final = 3.0
_FIRST_PAUSE_S: Final = 0.5
_MAX_PAUSE_S: Final = 30.0


class SyslogSender:
    """An ``Outlet``.

    Datagrams (udp, unix) are one message each and go once; a stream's message that may have been
    cut off is sent again on the next connection.

    Args:
        target: the receiver; a name is resolved at each connection.
        gateway: HOSTNAME of the messages.
        version: of this software.
        tls: what a TLS connection is verified by; ``None`` for the system's authorities.
    """

    def __init__(
        self,
        target: SyslogTarget,
        gateway: str,
        version: str,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.lost = 0
        self._target = target
        self._tls = tls
        self._format = SyslogFormat(gateway, version)
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._deadline = float("inf")
        self._socket: socket.socket | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._thread = threading.Thread(target=self._run, name="syslog", daemon=True)
        self._thread.start()

    def take(self, records: Sequence[FlowRecord]) -> None:
        """Queue a message for each record; beyond ``MAX_WAITING`` the new ones are lost."""
        with self._changed:
            for record in records:
                if len(self._waiting) >= MAX_WAITING or self._is_closing:
                    self.lost += 1
                else:
                    self._waiting.append(self._format.message(record))
            self._changed.notify()

    def close(self) -> None:
        """Send what waits, ``CLOSE_S`` at most; the rest is lost."""
        with self._changed:
            self._is_closing = True
            self._deadline = time.monotonic() + CLOSE_S
            self._changed.notify()
        self._thread.join(CLOSE_S + CONNECT_S)
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
                    if self._waiting:
                        self._waiting.popleft()
                self._pause_s = _FIRST_PAUSE_S
            else:
                self._rest()
        self._disconnect()

    def _is_over(self) -> bool:
        is_late = time.monotonic() >= self._deadline
        return self._is_closing and (not self._waiting or is_late)

    def _rest(self) -> None:
        """Wait before another try, until told to end."""
        with self._changed:
            self._changed.wait_for(self._is_over, timeout=self._pause_s)
        self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)

    def _send(self, message: bytes) -> bool:
        try:
            if self._socket is None:
                self._socket = self._connect()
            if self._is_stream:
                self._socket.sendall(octet_counted(message))
            else:
                self._socket.send(message)
        except OSError:  # ssl.SSLError and socket.gaierror are among them
            self._disconnect()
            return False
        return True

    @property
    def _is_stream(self) -> bool:
        return self._target.transport in ("tcp", "tls")

    def _connect(self) -> socket.socket:
        target = self._target
        if target.transport == "unix":
            return _connected(socket.AF_UNIX, socket.SOCK_DGRAM, target.host)
        if target.transport == "udp":
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)
            return _connected(found[0][0], socket.SOCK_DGRAM, found[0][4])
        connection = socket.create_connection((target.host, target.port), CONNECT_S)
        if target.transport == "tcp":
            return connection
        context = self._tls or ssl.create_default_context()
        try:
            return context.wrap_socket(connection, server_hostname=target.host)
        except OSError:
            connection.close()
            raise

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connected(family: int, kind: int, address: str | tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, kind)
    try:
        made.settimeout(CONNECT_S)
        made.connect(address)
    except OSError:
        made.close()
        raise
    return made

"""``SyslogConnection``: one message after the other over udp, tcp, tls or a unix socket."""

from __future__ import annotations

import select
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

from egressproxy.errors import ServiceError
from egressproxy.export.syslog_message import octet_counted

if TYPE_CHECKING:
    from egressproxy.export.outlet import SyslogTarget

CONNECT_S: Final = 5.0
RESOLVE_S: Final = 60.0
"""Datagrams bring no sign that their receiver has moved: its name is asked for again."""
_ANSWER_BYTES: Final = 4096


class SyslogConnection:
    """Connects when there is something to send, and again after ``close``. For one thread.

    A name is resolved at each connection, and every address of it is tried.

    Raises:
        ServiceError: a file that TLS needs cannot be read.
    """

    def __init__(self, target: SyslogTarget) -> None:
        self._target = target
        self._tls = _tls_context(target) if target.transport == "tls" else None
        self._socket: socket.socket | None = None
        self._connected_at = 0.0

    def send(self, message: bytes) -> None:
        """Send one message.

        Raises:
            OSError: it may not have been sent; ``close`` before another try.
        """
        if self._socket is not None and self._is_stale(self._socket):
            self.close()
        if self._socket is None:
            self._socket = self._connect()
            self._connected_at = time.monotonic()
        if self._target.transport in ("tcp", "tls"):
            self._socket.sendall(octet_counted(message))
        else:
            self._socket.send(message)

    def close(self) -> None:
        """Let go of the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _is_stale(self, connection: socket.socket) -> bool:
        if self._target.transport == "udp":
            return time.monotonic() - self._connected_at > RESOLVE_S
        return self._target.transport != "unix" and _has_hung_up(connection)

    def _connect(self) -> socket.socket:
        target = self._target
        if target.transport == "unix":
            return _connected(socket.AF_UNIX, socket.SOCK_DGRAM, target.host)
        if target.transport == "udp":
            return _first_connected(target.host, target.port)
        connection = socket.create_connection((target.host, target.port), CONNECT_S)
        if self._tls is None:
            return connection
        try:
            return self._tls.wrap_socket(connection, server_hostname=target.host)
        except BaseException:
            connection.close()
            raise


def _has_hung_up(connection: socket.socket) -> bool:
    """Whether the receiver has ended a stream: what is sent then is lost without a word.

    A receiver says nothing else (RFC 5425 section 4.4), but for TLS session tickets.
    """
    ears = select.poll()
    ears.register(connection, select.POLLIN)
    if not ears.poll(0):
        return False
    connection.settimeout(0)
    try:
        return not connection.recv(_ANSWER_BYTES)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    finally:
        connection.settimeout(CONNECT_S)


def _first_connected(host: str, port: int) -> socket.socket:
    """A datagram socket to the first address that there is a route to."""
    failure: OSError | None = None
    for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
        try:
            return _connected(family, kind, address)
        except OSError as error:
            failure = error
    raise failure or OSError(f"{host} has no address")


def _connected(family: int, kind: int, address: Any) -> socket.socket:
    made = socket.socket(family, kind)
    try:
        made.settimeout(CONNECT_S)
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def _tls_context(target: SyslogTarget) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=target.ca)
        if target.cert is not None:
            context.load_cert_chain(target.cert, password=_no_password)
    except OSError as error:  # ssl.SSLError is one
        names = " or ".join(str(file) for file in (target.ca, target.cert) if file is not None)
        raise ServiceError(
            f"{target}: {names} cannot be used: {error.strerror or error}",
            hint="PEM files: ca has certificates of authorities, cert our own with its key",
        ) from error
    return context


def _no_password() -> str:
    """OpenSSL would ask a terminal for it."""
    return ""

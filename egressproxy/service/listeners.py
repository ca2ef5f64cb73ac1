"""The listening sockets of all workers, opened and kept by the supervisor.

Every worker has a socket of its own for each listener (SO_REUSEPORT, socket(7)): the kernel spreads
new connections over them by a hash of the addresses. They live as long as the service, so that the
share of a worker that died waits in its sockets' queues for the successor.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from egressproxy.errors import ServiceError
from egressproxy.kernel.sockets import listen
from egressproxy.planes.context import ListenerKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from egressproxy.service.options import Endpoint, Listener

DEFER_ACCEPT_S: Final = 1
"""A client that says nothing is accepted after about this long: the server may have to begin."""


@dataclass(frozen=True, slots=True)
class OpenListeners:
    """``sockets[w][i]`` is worker w's for ``listeners[i]``, which have their real ports."""

    listeners: tuple[Listener, ...]
    sockets: tuple[tuple[socket.socket, ...], ...]

    def close(self) -> None:
        """Refuse new connections, once the workers have closed theirs, too."""
        for row in self.sockets:
            for sock in row:
                sock.close()


def open_listeners(
    listeners: Sequence[Listener], workers: int, *, keepalive_s: int
) -> OpenListeners:
    """Open every listener for every worker, or none.

    Raises:
        ServiceError: an address cannot be had; another process listens there.
    """
    columns: list[list[socket.socket]] = []
    found: list[Listener] = []
    try:
        for listener in listeners:
            _refuse_sharing(listener.endpoint)
            columns.append([])
            for sock in _sockets(listener, workers, keepalive_s):
                columns[-1].append(sock)
            port = columns[-1][0].getsockname()[1]
            found.append(replace(listener, endpoint=replace(listener.endpoint, port=port)))
    except ServiceError:
        for column in columns:
            for sock in column:
                sock.close()
        raise
    return OpenListeners(tuple(found), tuple(zip(*columns, strict=True)))


def _sockets(listener: Listener, workers: int, keepalive_s: int) -> Iterable[socket.socket]:
    port = listener.endpoint.port
    for _ in range(workers):
        sock = listen(
            listener.endpoint.address,
            port,
            keepalive_s=keepalive_s,
            defer_accept_s=DEFER_ACCEPT_S,
            transparent=listener.kind is ListenerKind.TPROXY,
        )
        yield sock
        port = sock.getsockname()[1]


def _refuse_sharing(endpoint: Endpoint) -> None:
    """Fail where somebody listens already, with whom SO_REUSEPORT would silently share."""
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((endpoint.address, endpoint.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ServiceError(
                    f"cannot listen on {endpoint}: another process does", hint="ss -ltnp names it"
                ) from error
            # Whatever else is wrong is said by the listener itself, which has other options set.

"""The listening sockets of all workers, opened and kept by the supervisor.

Every worker has a socket of its own for each listener (SO_REUSEPORT, socket(7)): the kernel spreads
new connections over them by a hash of the addresses. They live as long as the service, so that the
share of a worker that died waits in its sockets' queues for the successor.

A socket of a service manager (``service.activation``) takes the place of ours, and all workers
share it: each is woken for a new connection and the first one takes it, which costs the others a
system call. Where the manager gives as many of one address as there are workers (``ReusePort=``),
each has its own. Siblings of ours beside the manager's socket would not do: the kernel joins the
sockets of one user only, and what waits in the queues of ours would be reset when we end, which is
what the manager's socket is there to prevent.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from egressproxy.errors import ServiceError
from egressproxy.kernel.sockets import adopt, listen
from egressproxy.planes.context import ListenerKind
from egressproxy.service.options import Listener

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from egressproxy.service.activation import InheritedListener

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
    listeners: Sequence[Listener],
    workers: int,
    *,
    keepalive_s: int,
    inherited: Sequence[InheritedListener] = (),
) -> OpenListeners:
    """Open every listener for every worker, or none.

    Args:
        listeners: those that were asked for; one that is inherited is not opened again.
        workers: how many sockets each listener has.
        keepalive_s: as in ``kernel.sockets.listen``.
        inherited: served beside those that were asked for; owned from here on.

    Raises:
        ServiceError: an address cannot be had; another process listens there.
    """
    columns: list[list[socket.socket]] = []
    found: list[Listener] = []
    try:
        given = _given(inherited, keepalive_s)
        for listener in dict.fromkeys((*listeners, *given)):
            columns.append([])
            if listener in given:
                columns[-1] += _dealt(given[listener], workers)
                found.append(listener)
                continue
            _refuse_sharing(listener, given)
            for sock in _sockets(listener, workers, keepalive_s):
                columns[-1].append(sock)
            port = columns[-1][0].getsockname()[1]
            found.append(replace(listener, endpoint=replace(listener.endpoint, port=port)))
    except ServiceError:
        for sock in (*(sock for column in columns for sock in column), *_all(inherited)):
            sock.close()
        raise
    return OpenListeners(tuple(found), tuple(zip(*columns, strict=True)))


def _given(
    inherited: Sequence[InheritedListener], keepalive_s: int
) -> dict[Listener, list[socket.socket]]:
    """The manager's sockets by what they are for, made ready."""
    given: dict[Listener, list[socket.socket]] = {}
    for one in inherited:
        adopt(
            one.sock,
            keepalive_s=keepalive_s,
            defer_accept_s=DEFER_ACCEPT_S,
            transparent=one.kind is ListenerKind.TPROXY,
        )
        given.setdefault(Listener(one.kind, one.endpoint), []).append(one.sock)
    return given


def _dealt(sockets: list[socket.socket], workers: int) -> list[socket.socket]:
    """One for each worker. A queue that no worker serves would swallow its connections."""
    if len(sockets) == workers:
        return sockets
    if len(sockets) == 1:
        return sockets * workers
    raise ServiceError(
        f"socket activation: {len(sockets)} sockets of one address for {workers} workers",
        hint=f"one ListenStream=, or {workers} with ReusePort=yes; or workers: {len(sockets)}",
    )


def _all(inherited: Sequence[InheritedListener]) -> list[socket.socket]:
    return [one.sock for one in inherited]


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


def _refuse_sharing(listener: Listener, given: Iterable[Listener]) -> None:
    """Fail where somebody listens already, with whom SO_REUSEPORT would silently share."""
    endpoint = listener.endpoint
    for other in given:
        if other.endpoint == endpoint:
            raise ServiceError(
                f"{endpoint} is to be {listener.kind}, its socket unit says {other.kind}",
                hint=f"FileDescriptorName={listener.kind}",
            )
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

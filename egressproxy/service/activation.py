"""Listening sockets that a service manager opened and keeps open for us (sd_listen_fds(3)).

They come as descriptors from 3 on; ``LISTEN_FDNAMES`` has for each the ``FileDescriptorName=`` of
its socket unit, which has to be a ``ListenerKind``. The manager keeps them while the service is
down: a client that connects during a restart waits in the kernel's queue and is served afterwards.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.errors import ServiceError
from egressproxy.planes.context import ListenerKind
from egressproxy.service.options import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_DESCRIPTOR: Final = 3
MAX_DESCRIPTORS: Final = 4096
_NAMES: Final = ", ".join(ListenerKind)


@dataclass(frozen=True, slots=True)
class InheritedListener:
    """A listening socket that stays open when we end; ``endpoint`` has its real address."""

    kind: ListenerKind
    endpoint: Endpoint
    sock: socket.socket


def is_activated(environment: Mapping[str, str]) -> bool:
    """Whether a service manager gave sockets to this very process."""
    return environment.get("LISTEN_PID") == str(os.getpid()) and _count(environment) > 0


def activated_kinds(environment: Mapping[str, str]) -> frozenset[str]:
    """What the service manager says that its sockets are for; nothing where it gives none."""
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    return frozenset(names) if is_activated(environment) else frozenset()


def inherited_listeners(
    environment: Mapping[str, str], *, first: int = FIRST_DESCRIPTOR
) -> tuple[InheritedListener, ...]:
    """What the service manager gave; nothing where it did not start us by its sockets.

    To be called once: the sockets are the caller's from then on, and closed where one is wrong.

    Args:
        environment: with ``LISTEN_PID``, ``LISTEN_FDS`` and ``LISTEN_FDNAMES``.
        first: the first descriptor, 3 but in tests.

    Raises:
        ServiceError: a socket without a name that we know, or that does not listen on TCP.
    """
    if not is_activated(environment):
        return ()
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found: list[InheritedListener] = []
    try:
        for place in range(_count(environment)):
            name = names[place] if place < len(names) else ""
            found.append(_listener(first + place, name))
    except ServiceError:
        for listener in found:
            listener.sock.close()
        raise
    return tuple(found)


def _count(environment: Mapping[str, str]) -> int:
    text = environment.get("LISTEN_FDS", "")
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_DESCRIPTORS))
    return min(int(text), MAX_DESCRIPTORS) if is_number else 0


def _listener(descriptor: int, name: str) -> InheritedListener:
    if name not in set(ListenerKind):
        raise ServiceError(
            f"socket activation: descriptor {descriptor} is called {name!r}, not one of {_NAMES}",
            hint="FileDescriptorName=redirect in its socket unit",
        )
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ServiceError(f"socket activation: descriptor {descriptor}: {error}") from error
    is_listener = (
        sock.family in (socket.AF_INET, socket.AF_INET6)
        and sock.type == socket.SOCK_STREAM
        and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )
    if not is_listener:
        sock.close()
        raise ServiceError(
            f"socket activation: {name!r} (descriptor {descriptor}) is no listening TCP socket",
            hint="ListenStream=15001 in its socket unit, and Accept=no",
        )
    os.set_inheritable(descriptor, False)  # not for nft and other programs that we start
    address, port = sock.getsockname()[:2]
    return InheritedListener(ListenerKind(name), Endpoint(address, port), sock)

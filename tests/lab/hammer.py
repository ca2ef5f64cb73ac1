"""Clients of a spoke that never stop asking, for what a policy allows and for what it denies."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from lab import sites
from lab.tls_client import Offer, open_tls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lab.namespaces import Namespace
    from lab.network import Network

PAUSE_S: Final = 0.02
"""Between two rounds of a client: it shares the machine with the gateway."""
MAX_ROUNDS: Final = 20_000
_PATIENCE_S: Final = 20.0
TLS_PORT: Final = 443
AT_ONCE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closed with a reset."""
_ECHO: Final = {4: bytes.fromhex("0800b0ed47110001"), 6: bytes.fromhex("8000000047110001")}


class Door(NamedTuple):
    """Where a packet is sent to."""

    protocol: socket.SocketKind
    address: str
    port: int

    @property
    def place(self) -> tuple[str, int]:
        """Address and port."""
        return self.address, self.port


class Attempt(NamedTuple):
    """One TLS handshake: when it began (monotonic), for which name, and what became of it."""

    began: float
    name: str
    served: bool


@dataclass(slots=True)
class Hammer:
    """What the clients have done so far; ``faults`` are their own."""

    attempts: list[Attempt] = field(default_factory=list)
    rounds: dict[str, int] = field(default_factory=dict)
    faults: list[BaseException] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)
    patience_s: float = 5.0
    """How long a TLS client waits for each answer."""

    def more(self, rounds: int = 3, *, who: str = "") -> None:
        """Wait until every client (or one) has begun and ended so many rounds from now on.

        Raises:
            TimeoutError: one does not.
        """
        wanted = {
            name: count + rounds + 1 for name, count in self.rounds.items() if who in ("", name)
        }
        deadline = time.monotonic() + _PATIENCE_S
        while late := [name for name, count in wanted.items() if self.rounds[name] < count]:
            if time.monotonic() > deadline or self.faults:
                raise TimeoutError(f"{late} stand still: {self.faults}")
            time.sleep(PAUSE_S)


@contextmanager
def hammer(
    lab: Network, names: Sequence[str], doors: Sequence[Door], *, other_port: int = 0
) -> Iterator[Hammer]:
    """Let clients ask for TLS names and knock at doors until the block ends.

    Args:
        lab: where.
        names: asked for at 443.
        doors: knocked at, all in a round.
        other_port: where another client asks for the names, if anywhere.

    Raises:
        BaseException: a client's own fault, at the end.
    """
    clients = Hammer()
    works = {
        "tls": partial(_ask_names, lab, clients, names, TLS_PORT),
        "packets": partial(_knock, clients, doors),
    }
    if other_port:
        works["other port"] = partial(_ask_names, lab, clients, names, other_port)
    threads = [
        threading.Thread(target=_run, args=(lab.net.spoke, clients, name, work), name=name)
        for name, work in works.items()
    ]
    for thread in threads:
        clients.rounds[thread.name] = 0
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        clients.ending.set()
        for thread in threads:
            thread.join()
    if clients.faults:
        raise clients.faults[0]


def _run(spoke: Namespace, clients: Hammer, name: str, work: Callable[[], Iterator[None]]) -> None:
    try:
        with spoke.entered():
            for _ in work():
                clients.rounds[name] += 1
                if clients.rounds[name] > MAX_ROUNDS or clients.ending.wait(PAUSE_S):
                    return
    except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
        clients.faults.append(error)


def _ask_names(lab: Network, clients: Hammer, names: Sequence[str], port: int) -> Iterator[None]:
    """A round is one handshake for each name, by IPv4 and by IPv6 in turn."""
    turn = 0
    while True:
        for name in names:
            turn += 1
            began, version = time.monotonic(), (4, 6)[turn // len(names) % 2]
            served = is_served(lab, name, version=version, port=port, patience_s=clients.patience_s)
            clients.attempts.append(Attempt(began, name, served))
            if clients.ending.is_set():
                return
        yield


def is_served(
    lab: Network, name: str, *, version: int = 4, port: int = TLS_PORT, patience_s: float = 5.0
) -> bool:
    """Whether a TLS handshake for a name succeeds, from the namespace of the calling thread."""
    address = sites.site_of(name).addresses[version == 6]
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(patience_s)
        try:
            connection.connect((address, port))
            open_tls(connection, Offer(name), lab.authority.ca_file).handshake()
        except (OSError, ssl.SSLError):
            return False
        return True


def _knock(clients: Hammer, doors: Sequence[Door]) -> Iterator[None]:
    """A round knocks at every door, and pings; nobody waits for an answer."""
    pings = [(sites.CONTOSO.addresses[six], 6 if six else 4) for six in (0, 1)]
    while True:
        with ExitStack() as stack:
            for door in doors:
                stack.enter_context(knock(door))
            for address, version in pings:
                stack.enter_context(_ping(address, version))
            # What is answered at once is a connection by now; it ends with the round.
            yield


@contextmanager
def knock(door: Door) -> Iterator[socket.socket]:
    """Begin a connection, or send a datagram, from the namespace of the calling thread."""
    family = socket.AF_INET6 if ":" in door.address else socket.AF_INET
    with socket.socket(family, door.protocol) as sock:
        sock.setblocking(False)
        if door.protocol is socket.SOCK_DGRAM:
            _send(sock, b"knock", door.place)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            sock.connect_ex(door.place)
        yield sock


@contextmanager
def _ping(address: str, version: int) -> Iterator[None]:
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
        _send(sock, _ECHO[version], (address, 0))
        yield


def _send(sock: socket.socket, data: bytes, place: tuple[str, int]) -> None:
    try:
        sock.sendto(data, place)
    except OSError:  # no route while a link is down, or refused before: the answer is read here
        return

"""Clients of the kernel's firewall: what is tried, and what of it came through."""

from __future__ import annotations

import re
import select
import socket
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.kernel.firewall_options import FirewallOptions
from egressproxy.kernel.firewall_status import firewall_status
from egressproxy.kernel.kernel_policy import kernel_policy
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.takeover import takeover
from egressproxy.policy.load import load_policy
from lab.gateway import Gateway, gateway
from lab.programs import client
from tests.policy.tag_file import tag_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lab.namespaces import Namespace

TAGS: Final = "ServiceTags_Public.json"
"""Beside the policy that names it: the tests' cut."""
TIMEOUT_S: Final = 5.0
PATIENCE_S: Final = 30.0
_SENT: Final = re.compile(r"Raw packets sent: (\d+)")
_PORT: Final = re.compile(r"(\d+)/([a-z|]+)/(?:tcp|udp)/")
ALL_TCP: Final = ("-sS", "-p-", "--max-retries", "0")
COMMON_UDP: Final = ("-sU", "--top-ports", "200", "--max-retries", "0", "--min-rate", "400")
# An answer is microseconds away; a busy machine reads it later, and no try is repeated.
_PATIENT: Final = ("--initial-rtt-timeout", "600ms", "--min-rtt-timeout", "600ms")
_NMAP: Final = ("nmap", "-n", "-Pn", "--disable-arp-ping", "-v", "-T4", *_PATIENT)


def echoes(connection: socket.socket, data: bytes) -> bool:
    """Whether a connection brings back what is sent."""
    connection.sendall(data)
    got = bytearray()
    while len(got) < len(data) and (more := connection.recv(1 << 16)):
        got += more
    return bytes(got) == data


@contextmanager
def attempt(
    namespace: Namespace, address: str, port: int, *, source: str = ""
) -> Iterator[socket.socket]:
    """A TCP connection that is being opened; nobody waits for it."""
    with namespace.entered():
        trying = socket.socket(_family(address), socket.SOCK_STREAM)
    with trying:
        trying.setblocking(False)
        if source:
            trying.bind((source, 0))
        trying.connect_ex((address, port))
        yield trying


def is_open(trying: socket.socket) -> bool:
    """Whether an attempt has ended by now, with a connection or an error."""
    return bool(select.select([], [trying], [], 0)[1])


@contextmanager
def datagrams(
    namespace: Namespace, address: str, port: int, *, source: str = ""
) -> Iterator[socket.socket]:
    """A UDP socket that is connected to an address."""
    with namespace.entered():
        sending = socket.socket(_family(address), socket.SOCK_DGRAM)
    with sending:
        sending.settimeout(TIMEOUT_S)
        if source:
            sending.bind((source, 0))
        sending.connect((address, port))
        yield sending


def wait_for(claim: Callable[[], bool], otherwise: str) -> None:
    """Come back once it holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def port_of(local: socket.socket) -> int:
    """A socket's own port."""
    port: int = local.getsockname()[1]
    return port


@contextmanager
def instead_of(shared: Gateway, policy: str, *options: str) -> Iterator[Gateway]:
    """A gateway with other options and its own files; the shared one is stopped meanwhile."""
    shared.stop()
    shared.down()
    try:
        files = {TAGS: tag_file()}
        with gateway(shared.lab, policy, options=("--workers", "1", *options), files=files) as it:
            yield it
    finally:
        shared.start()


@dataclass(frozen=True, slots=True)
class Counts:
    """What the table's counters have, by outcome and by rule; ``sets`` are sizes by name."""

    outcomes: dict[str, int]
    rules: dict[str, int]
    sets: dict[str, int]

    def since(self, before: Counts) -> Counts:
        """What has been counted since, without what was not."""
        return Counts(
            _difference(self.outcomes, before.outcomes),
            _difference(self.rules, before.rules),
            self.sets,
        )

    @property
    def judged(self) -> int:
        """Packets that opened something and were to be forwarded."""
        own = self.outcomes.get("input", 0)
        return sum(self.outcomes.values()) + sum(self.rules.values()) - own


def counts(gateway: Gateway) -> Counts:
    """What ``egressproxy nft status`` would say now."""
    policy = kernel_policy(load_policy(gateway.policy_file), time.time())
    with gateway.lab.net.hub.entered():
        found = takeover(Nft(), gateway.state)
    status = firewall_status(found, policy, FirewallOptions(intercept=gateway.intercept))
    assert status.problems == ()
    sizes: Counter[str] = Counter()
    for each in status.sets:
        sizes[each.of] += each.elements
    return Counts(
        {each.of: each.packets for each in status.outcomes},
        {each.of: each.packets for each in status.rules},
        dict(sizes),
    )


@dataclass(frozen=True, slots=True)
class Scan:
    """What nmap found: the states of ports that it tells one by one, that of all others.

    ``sent`` are packets that nmap made itself, 0 where the kernel connected for it.
    """

    states: dict[int, str]
    rest: str
    sent: int

    def of(self, *states: str) -> set[int]:
        """The ports in one of these states."""
        return {port for port, state in self.states.items() if state in states}


def scan(namespace: Namespace, address: str, *options: str, folder: Path) -> Scan:
    """Run nmap from a namespace against an address; every port is tried, none is guessed."""
    family = ("-6",) if ":" in address else ()
    report = folder / "nmap.txt"
    done = client(namespace, *_NMAP, *family, *options, "-oG", str(report), address, timeout_s=100)
    assert done.code == 0, done.text
    sent = _SENT.search(done.stdout)
    text = report.read_text()
    rest = re.search(r"Ignored State: (\S+)", text)
    states = {int(port): state for port, state in _PORT.findall(text)}
    return Scan(states, rest[1] if rest else "", int(sent[1]) if sent else 0)


def _difference(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    grown = {name: count - before.get(name, 0) for name, count in now.items()}
    return {name: count for name, count in grown.items() if count}


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET

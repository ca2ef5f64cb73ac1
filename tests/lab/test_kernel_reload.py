"""A reload under load changes kernel and proxy together: nothing is open that the new one denies.

Two policies take turns. What one of them allows the other denies, network rules and application
rules, and one port moves from the kernel to the proxy and back. Clients knock without a pause. A
capture on the internet's side is judged by the policy that was in force at each packet's moment.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Any, Final

import pytest

from egressproxy.policy.load import load_policy
from lab import policies, sites
from lab.events import EventReader
from lab.gateway import gateway as running_gateway
from lab.network import Network, network
from lab.tls_client import Offer, TlsClient, open_tls
from lab.web import pattern
from tests.lab.border import Border, Capture, Law, capture
from tests.lab.hammer import AT_ONCE, Door, hammer, knock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lab.gateway import Gateway

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

ROUNDS: Final = 11
"""Reloads are twice as many."""
PATIENCE_S: Final = 10.0
DOWNLOAD_BYTES: Final = 64 << 20
IN_FORCE: Final = frozenset({"policy reloaded", "policy unchanged"})
MOVED: Final = 8443
"""A network rule in one policy, an application rule in the other."""
NAMES: Final = (sites.REGISTRY, sites.REGISTRY_DATA, "mcr.microsoft.com", "www.contoso.example")


def _to(site: sites.Site) -> str:
    return "[{}]".format(", ".join(f'"{address}"' for address in site.addresses))


BOTH: Final = f"""\
  - {{name: download, to: {_to(sites.MICROSOFT)}, ports: ["tcp:80"]}}
  - {{name: cluster, to: [{sites.CLUSTER}], ports: [https]}}
"""
ONE: Final = f"""\
  - {{name: sql, to: {_to(sites.CONTOSO)}, ports: ["tcp:1433"]}}
  - {{name: time, to: {_to(sites.CONTOSO)}, ports: ["udp:123"]}}
  - {{name: registry, to: [{sites.REGISTRY}], ports: [https]}}
  - {{name: moved, to: {_to(sites.MICROSOFT)}, ports: ["tcp:{MOVED}"]}}
"""
OTHER: Final = f"""\
  - {{name: tunnels, to: {_to(sites.CONTOSO)}, ports: ["tcp:9000"]}}
  - {{name: vpn, to: {_to(sites.CONTOSO)}, ports: ["udp:1194"]}}
  - {{name: data, to: [{sites.REGISTRY_DATA}], ports: [https]}}
  - {{name: moved, to: [www.contoso.example], ports: ["tls:{MOVED}"]}}
"""


@dataclass(frozen=True, slots=True)
class Side:
    """A policy, and what it alone allows."""

    text: str
    tcp: Door
    udp: Door
    name: str
    moved: str
    """A name that is served at the port that moves."""


def _sides(more: str = "") -> tuple[Side, Side]:
    def side(rules: str, tcp: int, udp: int, name: str, moved: str) -> Side:
        text = policies.policy(policies.DNS, rules=BOTH + rules) + more
        address = sites.CONTOSO.addresses[0]
        stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
        return Side(text, Door(stream, address, tcp), Door(datagram, address, udp), name, moved)

    return (
        side(ONE, 1433, 123, sites.REGISTRY, "mcr.microsoft.com"),
        side(OTHER, 9000, 1194, sites.REGISTRY_DATA, "www.contoso.example"),
    )


DOORS: Final = tuple(
    Door(protocol, site.addresses[six], port)
    for six in (0, 1)
    for site, protocol, port in (
        (sites.CONTOSO, socket.SOCK_STREAM, 1433),
        (sites.CONTOSO, socket.SOCK_DGRAM, 123),
        (sites.CONTOSO, socket.SOCK_STREAM, 9000),
        (sites.CONTOSO, socket.SOCK_DGRAM, 1194),
        (sites.MICROSOFT, socket.SOCK_STREAM, MOVED),
        (sites.CONTOSO, socket.SOCK_STREAM, MOVED),
    )
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network of our own: all that comes to its internet is ours."""
    with network(tmp_path_factory.mktemp("lab")) as built:
        yield built


@dataclass(slots=True)
class Steady:
    """What both policies allow: a download over a network rule, a tunnel through the proxy."""

    gateway: Gateway
    over: threading.Event = field(default_factory=threading.Event)
    echoed: int = 0
    digest: str = ""
    faults: list[BaseException] = field(default_factory=list)

    def download(self) -> None:
        """Slowly while reloads go on, then to its end."""
        lab = self.gateway.lab
        with lab.net.spoke.connect(sites.MICROSOFT.addresses[0], 80) as connection:
            connection.sendall(f"GET /bytes/{DOWNLOAD_BYTES} HTTP/1.0\r\n\r\n".encode())
            got = bytearray()
            while data := connection.recv(1 << 16):
                got += data
                self.over.wait(0.02)
        self.digest = hashlib.sha256(bytes(got).partition(b"\r\n\r\n")[2]).hexdigest()

    def tunnel(self) -> None:
        """Bytes there and back, all the time."""
        lab = self.gateway.lab
        connection = lab.net.spoke.connect(sites.API_SERVER.addresses[0], 443)
        offer = Offer(sites.CLUSTER, ("konnectivity", "h2"))
        with open_tls(connection, offer, lab.authority.ca_file) as tunnel:
            tunnel.handshake()
            tunnel.read_line()
            while not self.over.wait(0.01):
                self.echoed += 1
                assert _echoes(tunnel, b"%032d" % self.echoed)


@contextmanager
def _steady(gateway: Gateway) -> Iterator[Steady]:
    steady = Steady(gateway)

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
            steady.faults.append(error)

    threads = [
        threading.Thread(target=run, args=(work,)) for work in (steady.download, steady.tunnel)
    ]
    for thread in threads:
        thread.start()
    try:
        yield steady
    finally:
        steady.over.set()
        for thread in threads:
            thread.join()
    if steady.faults:
        raise steady.faults[0]


@dataclass(slots=True)
class Opened:
    """Connections under one policy that the next one denies."""

    tcp: socket.socket
    udp: socket.socket
    tls: TlsClient
    moved: TlsClient

    def are_used(self) -> bool:
        """Whether bytes go there and back."""
        self.tcp.sendall(b"tcp")
        self.udp.send(b"udp")
        return self.tcp.recv(3, socket.MSG_WAITALL) == b"tcp" and self.udp.recv(9) == b"udp"


@contextmanager
def _opened(lab: Network, side: Side) -> Iterator[Opened]:
    """Everything that a side allows, from the spoke, each at the first try."""
    spoke = lab.net.spoke
    with ExitStack() as stack:
        tcp = stack.enter_context(spoke.connect(*side.tcp.place))
        with spoke.entered():
            udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.settimeout(PATIENCE_S)
        udp.connect(side.udp.place)
        flows = [
            stack.enter_context(
                open_tls(
                    spoke.connect(sites.site_of(name).addresses[0], port),
                    Offer(name),
                    lab.authority.ca_file,
                )
            )
            for name, port in ((side.name, 443), (side.moved, MOVED))
        ]
        for flow in flows:
            flow.handshake()
        opened = Opened(tcp, udp, *flows)
        assert opened.are_used()
        yield opened


@dataclass(frozen=True, slots=True)
class Change:
    """A reload: POSIX times just before it and as it was reported in force, and the report."""

    began: float
    in_force: float
    report: dict[str, Any]


def _reload(gateway: Gateway, text: str) -> Change:
    log = EventReader(gateway.service_log)
    skip = log.mark()
    began = time.time()
    gateway.write_policy(text)
    digest = load_policy(gateway.policy_file).digest
    report = log.wait(
        lambda event: event["event"] in IN_FORCE and event["digest"] == digest,
        skip=skip,
        timeout_s=PATIENCE_S,
    )
    return Change(began, datetime.fromisoformat(report["time"]).timestamp(), report)


@pytest.fixture(scope="module")
def gateway(lab: Network) -> Iterator[Gateway]:
    """Under the first side's policy."""
    with running_gateway(lab, _sides()[0].text, options=("--workers", "2")) as running:
        yield running


def _law(folder: Path, side: Side) -> Law:
    file = folder / f"{side.name}.yaml"
    file.write_text(side.text)
    return Law(load_policy(file), (*NAMES, sites.CLUSTER))


def test_no_moment_allows_what_the_new_policy_denies(
    lab: Network, gateway: Gateway, tmp_path: Path
) -> None:
    sides = _sides()
    laws = [_law(tmp_path, side) for side in sides]
    border, swapped, changes = Border(), Border(), []
    border.holds(laws[0])
    swapped.holds(laws[1])
    with ExitStack() as stack:
        taken = stack.enter_context(capture(lab.net.internet))
        clients = stack.enter_context(hammer(lab, NAMES, DOORS, other_port=MOVED))
        clients.patience_s = 0.3
        steady = stack.enter_context(_steady(gateway))
        for number in range(2 * ROUNDS):
            now, coming = sides[number % 2], sides[(number + 1) % 2]
            with _opened(lab, now) as opened:
                changes.append(_reload(gateway, coming.text))
                border.holds(*laws, since=changes[-1].began)
                border.holds(laws[(number + 1) % 2], since=changes[-1].in_force)
                swapped.holds(laws[number % 2], since=changes[-1].in_force)
                _assert_ended(lab, now, opened)
            clients.more(1, who="packets")
    assert taken.lost == 0
    assert border.violations(taken) == []
    found = " ".join(swapped.violations(taken))
    assert all(f" {door.port} flags" in found for door in DOORS), "the other way round it is seen"
    told = [
        _assert_order(taken, change, *laws[:: -1 if number % 2 else 1])
        for number, change in enumerate(changes)
    ]
    assert sum(told) > ROUNDS, "the clients are too slow to tell anything"
    # A knock of its own may be open just then, beside the three that are opened for it.
    assert all(change.report["kernel_revoked"] >= 2 for change in changes)
    assert steady.echoed > ROUNDS
    assert steady.digest == hashlib.sha256(pattern(DOWNLOAD_BYTES)).hexdigest()


def _assert_order(taken: Capture, change: Change, old: Law, new: Law) -> bool:
    """The kernel closes before anything of the new policy opens, and opens after all is closed.

    A datagram between the ports of one before belongs to that one's connection, which goes on until
    the new policy is in force. Whether there were clients of both while it went on.
    """
    going, coming, known = [], [], set()
    for each in taken.seen:
        flow = each.packet[:5]
        is_new = each.opens and flow not in known
        known.add(flow)
        if change.began <= each.time <= change.in_force and is_new:
            if old.allows(each.packet) and not new.allows(each.packet):
                going.append((each.time, old.forwards(each.packet)))
            elif new.allows(each.packet) and not old.allows(each.packet):
                coming.append((each.time, new.forwards(each.packet)))
    last_forwarded = max((at for at, by_kernel in going if by_kernel), default=0.0)
    first_forwarded = min((at for at, by_kernel in coming if by_kernel), default=inf)
    assert last_forwarded < min((at for at, _ in coming), default=inf)
    assert max((at for at, _ in going), default=0.0) < first_forwarded
    return bool(going and coming)


def _assert_ended(lab: Network, side: Side, opened: Opened) -> None:
    """What the kernel forwarded is silence, also with the same ports again; the proxy resets."""
    with suppress(ConnectionError):
        while opened.tls.connection.recv(1 << 16):
            pass
    opened.tcp.sendall(b"tcp")
    opened.udp.send(b"udp")
    with suppress(ConnectionError):
        opened.moved.send(b"GET / HTTP/1.1\r\nHost: moved\r\n\r\n")
    _pass(lab)
    for sock in (opened.tcp, opened.udp):
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(9)
    port = opened.tcp.getsockname()[1]
    opened.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    opened.tcp.close()
    with lab.net.spoke.entered(), socket.socket() as again:
        again.setblocking(False)
        again.bind(("0.0.0.0", port))
        again.connect_ex(side.tcp.place)
        _pass(lab)
        with pytest.raises(OSError, match="not connected"):
            again.getpeername()


def _pass(lab: Network) -> None:
    """There and back on the same way: what was sent before has been judged by now."""
    lab.net.spoke.connect(sites.MICROSOFT.addresses[0], 80).close()


def test_keep_leaves_connections_and_begins_none(lab: Network, gateway: Gateway) -> None:
    one, other = _sides("on_reload: keep\n")
    _reload(gateway, one.text)
    with capture(lab.net.internet) as taken, _opened(lab, one) as opened:
        change = _reload(gateway, other.text)
        assert opened.are_used()
        assert change.report["kernel_kept"] >= 3
        with lab.net.spoke.entered(), knock(one.tcp), knock(one.udp):
            _pass(lab)
        ports = {sock.getsockname()[1] for sock in (opened.tcp, opened.udp)}
    later = [each for each in taken.seen if each.time > change.in_force]
    places = (one.tcp.place, one.udp.place)
    assert {
        each.packet.src_port for each in later if (each.packet.dst, each.packet.dst_port) in places
    } == ports


def test_a_refused_policy_changes_nothing(lab: Network, gateway: Gateway) -> None:
    one, other = _sides()
    _reload(gateway, one.text)
    hub = lab.net.hub
    before = hub.run("nft", "-s", "list", "ruleset")
    log = EventReader(gateway.service_log)
    with _opened(lab, one) as opened:
        skip = log.mark()
        gateway.write_policy(other.text.replace("name: vpn, to: [", "name: vpn, to: [nowhere?, "))
        log.wait(lambda event: event["event"] == "policy refused, the old one stays", skip=skip)
        assert hub.run("nft", "-s", "list", "ruleset") == before
        assert opened.are_used()
    with _opened(lab, one):
        pass


def test_a_flow_that_waits_for_dns_dials_nobody_whom_the_new_policy_denies(
    lab: Network, gateway: Gateway
) -> None:
    one, other = _sides()
    late = "late.fabrikam.example"
    allows = one.text + f"  - {{name: late, to: [{late}], ports: [https]}}\n"
    _reload(gateway, allows)
    place = sites.ELSEWHERE.addresses[0], 443
    with (
        capture(lab.net.internet) as taken,
        _silent_dns(lab),
        open_tls(lab.net.spoke.connect(*place), Offer(late), lab.authority.ca_file) as waiting,
    ):
        taken.wait("the gateway asks", [(sites.DNS_SERVER[0], 53)])
        change = _reload(gateway, other.text)
        assert change.report["revoked"] == 1
        waiting.connection.settimeout(PATIENCE_S)
        with pytest.raises(ConnectionResetError):
            waiting.connection.recv(1)
    assert place not in {(each.packet.dst, each.packet.dst_port) for each in taken.seen}


@contextmanager
def _silent_dns(lab: Network) -> Iterator[None]:
    internet = lab.net.internet
    internet.run("nft", "add", "table", "inet", "silent")
    hook = "{ type filter hook output priority 0; }"
    internet.run("nft", "add", "chain", "inet", "silent", "output", hook)
    internet.run("nft", "add", "rule", "inet", "silent", "output", "udp", "sport", "53", "drop")
    try:
        yield
    finally:
        internet.run("nft", "delete", "table", "inet", "silent")


def _echoes(tunnel: TlsClient, text: bytes) -> bool:
    tunnel.send(text)
    data = bytearray()
    while len(data) < len(text) and (more := tunnel.read()):
        data += more
    return bytes(data) == text

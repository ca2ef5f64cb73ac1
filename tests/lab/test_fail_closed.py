"""Whatever dies, is flushed or changed under load: nothing passes that the policy denies.

A capture on the internet's side runs from before the first start until after ``down``, and every
packet in it is judged. Clients ask without a pause, for what is allowed and for what is denied.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.kernel.firewall_options import Intercept
from egressproxy.policy.load import load_policy
from egressproxy.service.firewall_configuration import DEFAULT_PROXY_PORT
from lab import policies, sites
from lab.events import EventReader
from lab.gateway import Gateway
from lab.network import Network, network
from lab.topology import INSIDE, OUTSIDE
from tests.lab.border import Border, Capture, Law, capture
from tests.lab.hammer import Door, Hammer, hammer, is_served, knock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

BACK_S: Final = 2.0
"""How soon the service is back after any death: in seconds of a CPU, one thing after the other."""
LOADS: Final = 5.0
"""The same in times of loading its modules: seconds are longer where others use the same core.

It takes two to three of them; what it is to find is a start that does something else as well.
"""
LOAD: Final = """
import time, egressproxy.service.supervisor, egressproxy.admin.pages
print(time.process_time())
"""
LATE_S: Final = 20.0
"""The same by the clock, on whatever machine."""
PATIENCE_S: Final = 10.0
ALLOWED: Final = "www.contoso.example"
REFUSED: Final = "secret.contoso.example"
"""It lives at the address of the allowed one."""
UNNAMED: Final = "github.com"
NAMES: Final = (ALLOWED, REFUSED, UNNAMED)
_THERE: Final = ", ".join(f'"{address}"' for address in sites.CONTOSO.addresses)
POLICY: Final = policies.policy(
    policies.DNS,
    rules=f"""\
  - {{name: secret, action: deny, to: [{REFUSED}], ports: [https]}}
  - {{name: contoso, to: ["*.contoso.example"], ports: [https]}}
  - {{name: sql, to: [{_THERE}], ports: ["tcp:1433"]}}
  - {{name: time, to: [{_THERE}], ports: ["udp:123"]}}
""",
)
OPEN: Final = tuple(
    Door(protocol, address, port)
    for address in sites.CONTOSO.addresses
    for protocol, port in ((socket.SOCK_STREAM, 1433), (socket.SOCK_DGRAM, 123))
)
SHUT: Final = tuple(
    Door(protocol, site.addresses[six], port)
    for six in (0, 1)
    for site, protocol, port in (
        (sites.CONTOSO, socket.SOCK_STREAM, 9000),
        (sites.CONTOSO, socket.SOCK_STREAM, 8443),
        (sites.CONTOSO, socket.SOCK_STREAM, 123),
        (sites.MICROSOFT, socket.SOCK_STREAM, 1433),
        (sites.CONTOSO, socket.SOCK_DGRAM, 1194),
        (sites.CONTOSO, socket.SOCK_DGRAM, 443),
        (sites.ELSEWHERE, socket.SOCK_DGRAM, 53),
        (sites.ELSEWHERE, socket.SOCK_STREAM, 53),
    )
)


_PROTOCOLS: Final = {
    socket.SOCK_STREAM: socket.IPPROTO_TCP,
    socket.SOCK_DGRAM: socket.IPPROTO_UDP,
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network of our own: its gateway dies, and the capture begins before it lives."""
    with network(tmp_path_factory.mktemp("lab")) as built:
        yield built


@contextmanager
def _gateway(lab: Network, folder: Path, intercept: Intercept) -> Iterator[Gateway]:
    """One that is not started yet; taken back at the end whatever happened."""
    made = Gateway(lab, folder, EventReader(folder / "flows.jsonl"), intercept, ("--workers", "2"))
    made.policy_file.parent.mkdir(parents=True)
    made.policy_file.write_text(POLICY)
    try:
        yield made
    finally:
        made.stop()
        made.down()


@pytest.mark.parametrize("intercept", Intercept)
def test_nothing_denied_passes_whoever_dies(
    lab: Network, tmp_path: Path, intercept: Intercept
) -> None:
    border = Border()
    first_event = len(EventReader(lab.events.path).read())
    with (
        _gateway(lab, tmp_path / "gateway", intercept) as gateway,
        capture(lab.net.internet) as taken,
        hammer(lab, NAMES, (*OPEN, *SHUT)) as clients,
    ):
        law = Law(load_policy(gateway.policy_file), NAMES)
        border.holds()
        clients.more(who="packets")
        border.holds(law, since=time.time())
        gateway.start()
        flow = lab.net.spoke.connect(sites.CONTOSO.addresses[0], 1433)
        with flow:
            _workers_die(gateway, clients)
            _supervisor_dies(gateway, clients, flow, taken)
            _ruleset_is_flushed(gateway, clients, flow, taken)
            _links_change(gateway, clients, flow)
            gateway.stop()
            clients.more(who="packets")
            assert _echoes(flow), "what the kernel forwards does not need the service"
        clients.patience_s = 0.3
        gateway.down()
        border.holds(since=time.time())
        clients.more(who="packets")
        assert not _forwards(lab)
    assert taken.lost == 0
    assert border.violations(taken) == []
    told = {event.get("sni") for event in EventReader(lab.events.path).read()[first_event:]}
    assert ALLOWED in told
    assert not told & {REFUSED, UNNAMED}
    came = {(each.packet.dst, each.packet.dst_port) for each in taken.seen}
    assert came >= {door.place for door in OPEN}


def _workers_die(gateway: Gateway, clients: Hammer) -> None:
    """One, the other, both: their listeners are the supervisor's, and no new flow is lost."""
    (first, second), used = gateway.workers(), 0.0
    for victims in ((first,), (second,), ()):
        dead = set(victims or gateway.workers())
        died = time.monotonic()
        for victim in dead:
            os.kill(victim, signal.SIGKILL)
        _wait_for(partial(_are_replaced, gateway, dead))
        used = max(used, *map(_cpu_s, gateway.workers()))
        clients.more()
        begun = [each for each in clients.attempts if each.began > died]
        assert {each.served for each in begun if each.name == ALLOWED} == {True}
        assert {each.served for each in begun if each.name != ALLOWED} == {False}
    assert used < _in_time()


def _are_replaced(gateway: Gateway, dead: set[int]) -> bool:
    return not dead & {*gateway.workers()} and _is_ready(gateway)


def _supervisor_dies(
    gateway: Gateway, clients: Hammer, flow: socket.socket, taken: Capture
) -> None:
    """Application flows end, the kernel's part goes on alone; a start brings all back."""
    _kill_supervisor(gateway)
    clients.more(who="packets")
    assert _echoes(flow), "what the kernel forwards does not need the service"
    dead = len(taken.seen)
    assert not _served(gateway.lab, patience_s=0.3)
    taken.wait("while the service is dead", (door.place for door in OPEN), skip=dead)
    started = time.monotonic()
    gateway.start()
    used = _cpu_s(gateway.pid) + max(map(_cpu_s, gateway.workers()))
    while not _served(gateway.lab, patience_s=0.2):
        assert time.monotonic() - started < LATE_S
    assert used < _in_time()
    clients.more()


def _in_time() -> float:
    """``BACK_S`` on this machine just now."""
    argv = (sys.executable, "-c", LOAD)
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return max(BACK_S, LOADS * float(said))


def _cpu_s(pid: int) -> float:
    """What a process and its finished children have used (proc(5), ``stat``)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _kill_supervisor(gateway: Gateway) -> None:
    """Its workers die with it, and nobody holds the ports."""
    ends = [os.pidfd_open(pid) for pid in gateway.workers()]
    os.kill(gateway.pid, signal.SIGKILL)
    for end in ends:
        assert select.select([end], [], [], PATIENCE_S)[0], "a worker outlives its supervisor"
        os.close(end)
    gateway.stop()
    with pytest.raises(ConnectionRefusedError):
        gateway.lab.net.hub.connect("127.0.0.1", DEFAULT_PROXY_PORT)


def _ruleset_is_flushed(
    gateway: Gateway, clients: Hammer, flow: socket.socket, taken: Capture
) -> None:
    """The routing guard alone forwards nothing; the keeper puts the table back."""
    hub = gateway.lab.net.hub
    os.kill(gateway.pid, signal.SIGSTOP)  # nobody puts it back for now
    try:
        hub.run("nft", "flush", "ruleset")
        flushed = time.time()
        clients.more(who="packets")
    finally:
        until = time.time()
        os.kill(gateway.pid, signal.SIGCONT)
    _wait_for(lambda: _has_table(gateway) and _is_ready(gateway))
    shut = {(_PROTOCOLS[door.protocol], *door.place) for door in (*OPEN, *SHUT)}
    seen = [each for each in taken.seen if flushed < each.time < until]
    # The proxy's own connections go on, and TCP 443 is not UDP 443.
    assert [
        each
        for each in seen
        if (each.packet.protocol, each.packet.dst, each.packet.dst_port) in shut
    ] == []
    for _ in range(5):
        hub.run("nft", "flush", "ruleset")
        clients.more(1, who="packets")
        _wait_for(lambda: _has_table(gateway) and _is_ready(gateway))
    assert _echoes(flow)
    clients.more()


def _links_change(gateway: Gateway, clients: Hammer, flow: socket.socket) -> None:
    """Links come and go, go down and up, and addresses change."""
    hub = gateway.lab.net.hub
    hub.run("ip", "link", "add", "other", "type", "veth")
    hub.run("ip", "address", "add", "20.50.0.5/16", "dev", OUTSIDE)
    clients.more(1)
    hub.run("ip", "link", "set", INSIDE, "down")
    clients.more(1, who="packets")
    hub.run("ip", "link", "set", INSIDE, "up")
    hub.run("ip", "address", "add", f"{sites.HUB_INSIDE[1]}/64", "dev", INSIDE, "nodad")
    hub.run("ip", "address", "del", "20.50.0.5/16", "dev", OUTSIDE)
    hub.run("ip", "link", "del", "other")
    assert _echoes(flow)
    _wait_for(lambda: _is_ready(gateway))
    clients.more()


def test_the_proof_finds_holes(lab: Network, tmp_path: Path) -> None:
    """Each hole is opened on purpose; the judgement of the capture names what came through it."""
    hub, spoke = lab.net.hub, lab.net.spoke
    shut = Door(socket.SOCK_DGRAM, sites.CONTOSO.addresses[0], 1194)
    with _gateway(lab, tmp_path / "gateway", Intercept.REDIRECT) as gateway:
        gateway.start()
        law = Law(load_policy(gateway.policy_file), NAMES)
        gateway.stop()
        with _holds(lab, law) as (taken, found), spoke.entered(), knock(OPEN[0]):
            taken.wait("an open door", [OPEN[0].place])
        assert found == []
        with _holds(lab, law) as (taken, found), hub.entered():
            knock_as_the_proxy = Door(socket.SOCK_STREAM, sites.ELSEWHERE.addresses[1], 443)
            with knock(knock_as_the_proxy):
                taken.wait("the proxy dials", [knock_as_the_proxy.place])
        assert found
        assert all(sites.ELSEWHERE.addresses[1] in each for each in found)
        hub.run("nft", "insert", "rule", "inet", "egressproxy", "pass_1", "goto", "allow")
        with _holds(lab, law) as (taken, found), spoke.entered(), knock(shut):
            taken.wait("a rule by hand", [shut.place])
        assert found
        hub.run("nft", "flush", "ruleset")
        hub.run("ip", "rule", "add", "pref", "50", "lookup", "main")
        with _holds(lab, law) as (taken, found), spoke.entered(), knock(OPEN[0]):
            taken.wait("neither table nor guard", [OPEN[0].place])
        hub.run("ip", "rule", "del", "pref", "50")
        assert sites.SPOKE_NODE[0] in found[0], "an open door, but with the spoke's own address"


@contextmanager
def _holds(lab: Network, law: Law) -> Iterator[tuple[Capture, list[str]]]:
    border = Border()
    border.holds(law)
    found: list[str] = []
    with capture(lab.net.internet) as taken:
        yield taken, found
    found += border.violations(taken)


def _echoes(flow: socket.socket) -> bool:
    flow.sendall(b"still here")
    return flow.recv(10, socket.MSG_WAITALL) == b"still here"


def _served(lab: Network, *, patience_s: float) -> bool:
    with lab.net.spoke.entered():
        return is_served(lab, ALLOWED, patience_s=patience_s)


def _forwards(lab: Network) -> bool:
    with lab.net.hub.entered():
        return any(
            Path(f"/proc/sys/net/{name}").read_text().strip() != "0"
            for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
        )


def _has_table(gateway: Gateway) -> bool:
    return "egressproxy" in gateway.lab.net.hub.run("nft", "list", "tables")


def _is_ready(gateway: Gateway) -> bool:
    return bool(json.loads(gateway.admin("/readyz")[1])["ready"])


def _wait_for(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LATE_S
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.02)

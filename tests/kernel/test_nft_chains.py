"""Real connections through a gateway with our table: what passes, and what stays closed."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.kernel.conntrack import Conntrack
from egressproxy.kernel.destination import local_destination, redirected_destination
from egressproxy.kernel.firewall_options import FirewallOptions, Intercept, Snat
from egressproxy.kernel.kernel_policy import kernel_policy
from egressproxy.kernel.marks import FORWARDED, JUDGED
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.nft_names import Outcome, rule_counter
from egressproxy.kernel.nft_script import table_script
from egressproxy.kernel.routing import ensure_guard, ensure_tproxy, remove_routing
from egressproxy.kernel.sockets import listen
from tests.kernel.frames import packet_socket
from tests.kernel.one_nic import CLIENT, HUB, HUB_OUTSIDE, SERVER, OneNic, one_nic, tcp, udp
from tests.policy.building import NOON, policy, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.policy.rules import Rule
    from lab.namespaces import Namespace

pytestmark = pytest.mark.netns

PROXY: Final = 15001
REDIRECT: Final = FirewallOptions(redirect_port=PROXY)
TPROXY: Final = FirewallOptions(tproxy_port=PROXY, intercept=Intercept.TPROXY)
OPEN: Final = rule("rules/open", "0.0.0.0/0", "::/0", ports="tcp:7000-7999 udp:7000-7999")
BY_NAME: Final = rule("rules/by-name", "www.example", ports="tls:443 http:80")
CLOSED: Final = 9999
VERSIONS: Final = pytest.mark.parametrize("version", [4, 6])
INTERCEPTS: Final = pytest.mark.parametrize(
    "options", [REDIRECT, TPROXY], ids=lambda o: o.intercept
)
ICMPV6, ND_REDIRECT = 58, 137
_TCP_MAXSEG: Final = 2
BEFORE: Final = """
table inet before {
    chain tracks {
        type filter hook forward priority filter;
        ct state new accept
    }
}
"""


class Gateway:
    """The hub with all that the kernel needs, and clients and servers on both sides of it."""

    def __init__(self, net: OneNic) -> None:
        self.net = net
        self.nft = Nft()

    def load(self, *rules: Rule, options: FirewallOptions = REDIRECT, reload: bool = False) -> None:
        with self.net.hub.entered():
            ensure_guard()
            if options.intercept is Intercept.TPROXY:
                ensure_tproxy()
            existing = self.nft.table_state() if reload else None
            made = kernel_policy(policy(*rules, BY_NAME), NOON)
            self.nft.apply(table_script(made, options, existing))

    def run(self, *argv: str) -> str:
        return self.net.hub.run(*argv)

    def count(self, name: str) -> int:
        with self.net.hub.entered():
            state = self.nft.table_state()
        assert state is not None
        return state.counters[name].packets

    @contextmanager
    def proxy(self, options: FirewallOptions) -> Iterator[socket.socket]:
        is_tproxy = options.intercept is Intercept.TPROXY
        with (
            self.net.hub.entered(),
            listen("::", PROXY, keepalive_s=60, transparent=is_tproxy) as listener,
        ):
            listener.settimeout(5)
            yield listener

    def client(self, version: int, port: int, *, timeout_s: float = 5.0) -> socket.socket:
        return self.net.client.connect(SERVER[version], port, timeout_s=timeout_s)

    def is_silent(self, namespace: Namespace, address: str, port: int) -> bool:
        """Whether a SYN gets no answer, be it yes or no, while one that is allowed gets it."""
        try:
            namespace.connect(address, port, timeout_s=0.3).close()
        except TimeoutError:
            return True
        except ConnectionRefusedError:
            return False
        return False


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with one_nic(tmp_path) as net:
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            net.sysctl(f"net/{name}", "1")
        net.sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")
        for name in ("rp_filter", "send_redirects"):
            net.sysctl(f"net/ipv4/conf/all/{name}", "0")
            net.sysctl(f"net/ipv4/conf/eth0/{name}", "0")
        yield Gateway(net)


# Forwarded


@VERSIONS
@pytest.mark.parametrize(
    ("snat", "seen"),
    [(Snat.NON_PRIVATE, HUB_OUTSIDE), (Snat.ALWAYS, HUB_OUTSIDE), (Snat.NEVER, CLIENT)],
)
def test_a_public_server_sees_the_gateway_unless_told_otherwise(
    gateway: Gateway, version: int, snat: Snat, seen: dict[int, str]
) -> None:
    gateway.load(OPEN, options=replace(REDIRECT, snat=snat))
    with (
        tcp(gateway.net.server, SERVER[version], 7001) as server,
        gateway.client(version, 7001) as client,
    ):
        accepted, address = server.accept()
        with accepted:
            assert address[0] == seen[version]
            client.sendall(b"question")
            assert accepted.recv(100) == b"question"
            accepted.sendall(b"answer")
            assert client.recv(100) == b"answer"


@VERSIONS
@pytest.mark.parametrize(("snat", "seen"), [(Snat.NON_PRIVATE, CLIENT), (Snat.ALWAYS, HUB)])
def test_a_private_server_sees_the_client(
    gateway: Gateway, version: int, snat: Snat, seen: dict[int, str]
) -> None:
    private = {4: "10.97.0.77", 6: "fd97::77"}[version]
    length = {4: 24, 6: 64}[version]
    # A third host of the client's own network, which the client reaches through the gateway.
    gateway.net.server.run(
        "ip", "addr", "add", f"{private}/{length}", "dev", "eth0", *_nodad(version)
    )
    gateway.net.client.run("ip", "route", "add", private, "via", HUB[version])
    gateway.net.server.run("ip", "route", "add", CLIENT[version], "via", HUB[version])
    gateway.load(OPEN, options=replace(REDIRECT, snat=snat))
    with udp(gateway.net.server, private, 7001) as server, _udp_client(gateway, version) as client:
        client.sendto(b"question", (private, 7001))
        _, address = server.recvfrom(100)
        assert address[0] == seen[version]


def _nodad(version: int) -> list[str]:
    return ["nodad"] if version == 6 else []


@contextmanager
def _udp_client(gateway: Gateway, version: int) -> Iterator[socket.socket]:
    with udp(gateway.net.client, CLIENT[version]) as client:
        yield client


@VERSIONS
def test_datagrams_larger_than_the_wire_pass_whole(gateway: Gateway, version: int) -> None:
    gateway.load(OPEN)
    text = bytes(range(256)) * 40
    with (
        udp(gateway.net.server, SERVER[version], 7001) as server,
        _udp_client(gateway, version) as client,
    ):
        client.sendto(text, (SERVER[version], 7001))
        received, address = server.recvfrom(20_000)
        assert received == text
        server.sendto(text[::-1], address)
        assert client.recv(20_000) == text[::-1]


@VERSIONS
def test_errors_about_a_forwarded_flow_reach_its_client(gateway: Gateway, version: int) -> None:
    gateway.load(OPEN)
    with _udp_client(gateway, version) as client:
        client.connect((SERVER[version], 7002))  # nobody there: ICMP port unreachable
        client.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)


@VERSIONS
def test_the_segment_size_is_that_of_the_way(gateway: Gateway, version: int) -> None:
    gateway.run("ip", "route", "replace", SERVER[version], "dev", "eth0", "mtu", "1300")
    gateway.load(OPEN)
    with (
        tcp(gateway.net.server, SERVER[version], 7001) as server,
        gateway.client(version, 7001),
        server.accept()[0] as accepted,
    ):
        size = accepted.getsockopt(socket.IPPROTO_TCP, _TCP_MAXSEG)
        assert 1000 < size <= 1300 - {4: 40, 6: 60}[version]


# Refused


@VERSIONS
def test_quic_is_refused_so_that_its_client_knows_at_once(gateway: Gateway, version: int) -> None:
    gateway.load(OPEN)
    with (
        udp(gateway.net.server, SERVER[version], 443) as server,
        _udp_client(gateway, version) as client,
    ):
        client.connect((SERVER[version], 443))
        client.send(b"initial")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(1)
    assert gateway.count(Outcome.QUIC_REFUSED) == 1


@VERSIONS
def test_nobody_outside_begins_a_connection_inwards(gateway: Gateway, version: int) -> None:
    gateway.load(OPEN)
    with tcp(gateway.net.client, CLIENT[version], 7001):
        assert gateway.is_silent(gateway.net.server, CLIENT[version], 7001)
    assert gateway.count(Outcome.NO_CLIENT) > 0
    assert gateway.count(rule_counter(OPEN.id)) == 0


@VERSIONS
def test_an_open_flow_goes_on_over_a_reload_and_ends_with_its_conntrack_entry(
    gateway: Gateway, version: int
) -> None:
    gateway.load(OPEN)
    with (
        tcp(gateway.net.server, SERVER[version], 7001) as server,
        gateway.client(version, 7001) as client,
        server.accept()[0] as accepted,
    ):
        accepted.settimeout(5)
        assert gateway.count(rule_counter(OPEN.id)) == 1
        gateway.load(OPEN, reload=True)
        assert gateway.count(rule_counter(OPEN.id)) == 1
        gateway.load(reload=True)  # the rule is gone, its connection still tracked
        client.sendall(b"on")
        assert accepted.recv(100) == b"on"
        _forget_connections(gateway)
        client.sendall(b"off")
        accepted.settimeout(0.3)
        with pytest.raises(TimeoutError):
            accepted.recv(100)
    assert gateway.count(Outcome.INVALID) > 0


def _forget_connections(gateway: Gateway) -> None:
    with gateway.net.hub.entered(), Conntrack() as conntrack:
        for entry in list(conntrack.entries(mark=FORWARDED, mask=FORWARDED)):
            conntrack.delete(entry)


# Taken to the proxy


@VERSIONS
@INTERCEPTS
def test_application_ports_come_to_the_proxy_with_their_destination(
    gateway: Gateway, options: FirewallOptions, version: int
) -> None:
    gateway.load(OPEN, options=options)
    with gateway.proxy(options) as proxy, gateway.client(version, 443) as client:
        accepted, _ = proxy.accept()
        with accepted:
            asked = (
                redirected_destination(accepted)
                if options.intercept is Intercept.REDIRECT
                else local_destination(accepted)
            )
            assert asked == (SERVER[version], 443)
            client.sendall(b"hello")
            assert accepted.recv(100) == b"hello"
            accepted.sendall(b"back")
            assert client.recv(100) == b"back"
    assert gateway.count(Outcome.PROXIED) == 1


@VERSIONS
@INTERCEPTS
def test_without_its_proxy_an_application_port_is_closed(
    gateway: Gateway, options: FirewallOptions, version: int
) -> None:
    gateway.load(OPEN, options=options)
    with tcp(gateway.net.server, SERVER[version], 443) as server, ExitStack() as stack:
        with gateway.proxy(options) as proxy:
            client = stack.enter_context(gateway.client(version, 443))
            proxy.accept()[0].close()
        # The open connection, too: its packets have no socket any more and go nowhere else.
        with suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(b"after the end")
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            gateway.client(version, 443, timeout_s=0.3)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@VERSIONS
@INTERCEPTS
def test_the_proxy_port_itself_is_not_to_be_reached(
    gateway: Gateway, options: FirewallOptions, version: int
) -> None:
    gateway.load(rule("rules/all", "any", ports="tcp:1-65535"), options=options)
    with gateway.proxy(options):
        assert gateway.is_silent(gateway.net.client, HUB[version], PROXY)
        assert gateway.is_silent(gateway.net.server, HUB_OUTSIDE[version], PROXY)
        assert gateway.is_silent(gateway.net.client, HUB[version], 443)
    assert gateway.count(rule_counter("rules/all")) == 0


# When something is missing


@VERSIONS
@INTERCEPTS
@pytest.mark.parametrize(
    "lost",
    [
        ("nft", "flush", "table", "inet", "egressproxy"),
        ("nft", "delete", "table", "inet", "egressproxy"),
        ("nft", "flush", "ruleset"),
        ("nft", "flush", "chain", "inet", "egressproxy", "prerouting"),
    ],
    ids=" ".join,
)
def test_a_lost_table_forwards_nothing(
    gateway: Gateway, options: FirewallOptions, lost: tuple[str, ...], version: int
) -> None:
    gateway.load(OPEN, options=options)
    with tcp(gateway.net.server, SERVER[version], 7001) as server, ExitStack() as stack:
        open_before = stack.enter_context(gateway.client(version, 7001))
        accepted = stack.enter_context(server.accept()[0])
        gateway.run(*lost)
        open_before.sendall(b"more")
        accepted.settimeout(0.3)
        with pytest.raises(TimeoutError):
            accepted.recv(10)
        assert gateway.is_silent(gateway.net.client, SERVER[version], 7001)
        assert gateway.is_silent(gateway.net.client, SERVER[version], 443)


@VERSIONS
def test_without_the_guard_the_table_alone_is_closed(gateway: Gateway, version: int) -> None:
    """``forward`` drops what ``prerouting`` did not mark, whoever else sets marks."""
    gateway.load(OPEN)
    with gateway.net.hub.entered():
        remove_routing()
    gateway.run("nft", "flush", "chain", "inet", "egressproxy", "judge")
    assert gateway.is_silent(gateway.net.client, SERVER[version], 7001)
    gateway.run(
        "nft", "add", "rule", "inet", "egressproxy", "judge", "meta", "mark", "set", str(JUDGED)
    )
    assert gateway.is_silent(gateway.net.client, SERVER[version], 7001)
    assert gateway.count(Outcome.UNJUDGED) > 0


@VERSIONS
def test_a_connection_from_before_the_table_is_not_forwarded(
    gateway: Gateway, version: int
) -> None:
    for end in (gateway.net.client, gateway.net.server):
        with end.entered():  # or the hub would tell both of the nearer way
            Path("/proc/sys/net/ipv6/conf/eth0/accept_redirects").write_text("0")
    gateway.net.hub.run("nft", "-f", "-", stdin=BEFORE)
    with ExitStack() as stack:
        server = stack.enter_context(tcp(gateway.net.server, SERVER[version], 7001))
        client = stack.enter_context(gateway.client(version, 7001))
        accepted = stack.enter_context(server.accept()[0])
        gateway.load(OPEN)
        client.sendall(b"more")
        accepted.settimeout(0.3)
        with pytest.raises(TimeoutError):
            accepted.recv(10)
    assert gateway.count(Outcome.UNJUDGED) > 0


def test_clients_are_not_told_of_a_way_past_the_gateway(gateway: Gateway) -> None:
    """They are on the gateway's own wire with the server: Linux would redirect, by IPv6 always."""
    gateway.load(OPEN)
    assert _redirects(gateway) == 0
    gateway.run("nft", "flush", "chain", "inet", "egressproxy", "output")
    assert _redirects(gateway) > 0


def _redirects(gateway: Gateway) -> int:
    """How many come to the client for a datagram to a server that it could reach by itself."""
    gateway.run("ip", "address", "replace", "fe80::97/64", "dev", "eth0", "nodad")
    with (
        udp(gateway.net.hub, HUB[6]) as hub,
        udp(gateway.net.server, SERVER[6], 7001) as server,
        _udp_client(gateway, 6) as client,
        packet_socket(gateway.net.client) as tap,
    ):
        hub.sendto(b"first", client.getsockname()[:2])  # the hub knows its neighbour from now on
        assert client.recv(10) == b"first"
        client.sendto(b"?", (SERVER[6], 7001))
        server.recv(1)
        hub.sendto(b"last of all", client.getsockname()[:2])
        found = 0
        while b"last of all" not in (frame := tap.recv(4096)):
            found += (
                frame[12:14] == b"\x86\xdd" and frame[20] == ICMPV6 and frame[54] == ND_REDIRECT
            )
        return found

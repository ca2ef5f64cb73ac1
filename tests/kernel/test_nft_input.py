"""What the gateway itself answers to, asked over the wire from both sides."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final

import pytest

from egressproxy.kernel.firewall_options import FirewallOptions, Intercept
from egressproxy.kernel.kernel_policy import kernel_policy
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.nft_input import input_chain
from egressproxy.kernel.nft_names import Outcome
from egressproxy.kernel.nft_script import table_script
from egressproxy.kernel.nft_sets import Sets
from tests.kernel.one_nic import CLIENT, HUB, HUB_OUTSIDE, OneNic, one_nic, tcp, udp
from tests.policy.building import NOON, policy, rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.namespaces import Namespace

SSH, ADMIN, EXPLICIT, PROXY, OTHER = 22, 9090, 3128, 15001, 8080
PORTS: Final = (SSH, ADMIN, EXPLICIT, PROXY, OTHER)


def options(role: str = "", address: str = "") -> FirewallOptions:
    """Every service is there; one address has a role, or nobody."""
    nobody = FirewallOptions(redirect_port=PROXY, admin_port=ADMIN, explicit_ports=(EXPLICIT,))
    chosen: dict[str, Any] = {role: (ip_network(address),)} if role else {}
    return replace(nobody, **chosen)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[OneNic]:
    with one_nic(tmp_path) as built:
        yield built


def load(net: OneNic, chosen: FirewallOptions) -> None:
    everything = rule("rules/everything", "any", ports="tcp:1-65535 udp:1-65535")
    with net.hub.entered():
        Nft().apply(table_script(kernel_policy(policy(everything), NOON), chosen))


def answered(namespace: Namespace, address: str) -> set[int]:
    """The ports that say yes or no to a SYN."""
    found = set()
    for port in PORTS:
        try:
            namespace.connect(address, port, timeout_s=0.2).close()
        except TimeoutError:
            continue
        except ConnectionRefusedError:
            pass
        found.add(port)
    return found


@pytest.mark.netns
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("role", "ports"),
    [
        ("", set()),
        ("management", {SSH, ADMIN, EXPLICIT}),
        ("explicit_clients", {EXPLICIT}),
        ("probes", {ADMIN}),
        ("clients", set()),
    ],
)
def test_each_role_reaches_its_ports(net: OneNic, version: int, role: str, ports: set[int]) -> None:
    load(net, options(role, CLIENT[version]))
    with ExitStack() as stack:
        for port in PORTS:
            stack.enter_context(tcp(net.hub, HUB[version], port))
        assert answered(net.client, HUB[version]) == ports
        assert answered(net.server, HUB_OUTSIDE[version]) == set()


@pytest.mark.netns
@pytest.mark.parametrize("version", [4, 6])
def test_clients_may_ping_and_strangers_may_not(net: OneNic, version: int) -> None:
    load(net, options())
    assert is_pinged(net.client, HUB[version])
    assert not is_pinged(net.server, HUB_OUTSIDE[version])
    assert count(net) > 0


def is_pinged(namespace: Namespace, address: str) -> bool:
    family, protocol, asked, answer = {
        False: (socket.AF_INET, socket.IPPROTO_ICMP, 8, 0),
        True: (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, 129),
    }[":" in address]
    with namespace.entered():
        sock = socket.socket(family, socket.SOCK_RAW, protocol)
    with sock:
        sock.connect((address, 0))
        echo = struct.pack("!BBHHH", asked, 0, 0, 7, 1)
        checksum = 0xFFFF - (asked << 8) - 7 - 1
        sock.send(echo[:2] + struct.pack("!H", checksum) + echo[4:])
        sock.settimeout(0.5)
        try:
            while True:
                packet = sock.recv(200)
                if packet[0 if family == socket.AF_INET6 else 20] == answer:
                    return True
        except TimeoutError:
            return False


@pytest.mark.netns
@pytest.mark.parametrize("version", [4, 6])
def test_what_the_gateway_asks_is_answered(net: OneNic, version: int) -> None:
    load(net, options())
    with udp(net.hub, HUB_OUTSIDE[version]) as hub, udp(net.server, "::") as server:
        hub.sendto(b"question", (_server(version), server.getsockname()[1]))
        _, address = server.recvfrom(100)
        server.sendto(b"answer", address)
        assert hub.recv(100) == b"answer"


def _server(version: int) -> str:
    return {4: "20.97.0.1", 6: "2001:db8:97::1"}[version]


def count(net: OneNic) -> int:
    with net.hub.entered():
        state = Nft().table_state()
    assert state is not None
    return state.counters[Outcome.INPUT].packets


def lines(chosen: FirewallOptions) -> str:
    return "\n".join(input_chain(chosen, Sets()).rules)


def test_a_service_that_is_not_there_has_no_line() -> None:
    text = lines(FirewallOptions(management=(ip_network("10.9.0.0/24"),)))
    assert "ip saddr 10.9.0.0/24 tcp dport 22 accept" in text
    for word in ("explicit proxy", "health probes", "application flows", "ip6 saddr 10"):
        assert word not in text


@pytest.mark.parametrize(
    ("chosen", "match"),
    [
        (FirewallOptions(redirect_port=PROXY), "ct status dnat tcp dport 15001 accept"),
        (
            FirewallOptions(tproxy_port=PROXY, intercept=Intercept.TPROXY),
            "meta mark & 0x04000000 != 0 ct mark & 0x08000000 != 0 meta l4proto tcp accept",
        ),
    ],
    ids=["redirect", "tproxy"],
)
def test_the_listener_is_for_connections_that_were_taken_there(
    chosen: FirewallOptions, match: str
) -> None:
    assert match in lines(chosen)

"""Original destinations: parts on loopback, the whole in network namespaces with real nft rules."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from egressproxy.kernel.destination import (
    local_destination,
    plain_address,
    redirected_destination,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:0:1", "::ffff:0:1"),
        ("::", "::"),
    ],
)
def test_plain_address(text: str, plain: str) -> None:
    assert plain_address(text) == plain


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_connection_that_nobody_redirected(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.create_server((address, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]),
    ):
        accepted, _ = server.accept()
        with accepted:
            assert local_destination(accepted) == (address, server.getsockname()[1])
            found = redirected_destination(accepted)
            # Where conntrack is loaded it knows the connection, and says where it went: here.
            assert found in (None, (address, server.getsockname()[1]))


def test_a_dual_stack_socket_shows_plain_addresses() -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server,
        socket.create_connection(("127.0.0.1", server.getsockname()[1])),
    ):
        accepted, _ = server.accept()
        with accepted:
            assert local_destination(accepted) == ("127.0.0.1", server.getsockname()[1])


SERVER = """
import socket, sys
from egressproxy.kernel.destination import local_destination, plain_address, redirected_destination
from egressproxy.kernel.sockets import listen
kind, address = sys.argv[1:]
server = listen(address, 15001, keepalive_s=60, transparent=kind == "tproxy")
server.setblocking(True)
print("ready", flush=True)
for _ in range(int(sys.stdin.readline())):
    accepted, peer = server.accept()
    find = local_destination if kind == "tproxy" else redirected_destination
    print(*(find(accepted) or ["nothing"]), plain_address(peer[0]), flush=True)
    accepted.close()
"""

REDIRECT = """
table inet t {
    chain p {
        type nat hook prerouting priority dstnat;
        tcp dport { 443, 8443 } redirect to :15001
    }
}
"""
TPROXY = """
table inet t {
    chain p {
        type filter hook prerouting priority mangle;
        meta nfproto ipv4 tcp dport { 443, 8443 } tproxy ip to :15001 meta mark set 1
        meta nfproto ipv6 tcp dport { 443, 8443 } tproxy ip6 to :15001 meta mark set 1
    }
}
"""


def sh(command: str, text: str = "") -> None:
    subprocess.run(command.split(), input=text, text=True, check=True, capture_output=True)


@pytest.fixture
def hub() -> Iterator[tuple[str, str]]:
    """A spoke and a hub, each a namespace, joined by a veth; the hub is the spoke's gateway."""
    spoke, hub = f"egx-eng-s{os.getpid()}", f"egx-eng-h{os.getpid()}"
    with contextlib.ExitStack() as stack:
        for name in (spoke, hub):
            sh(f"ip netns add {name}")
            stack.callback(sh, f"ip netns del {name}")
        sh(f"ip link add e0 netns {spoke} type veth peer name e1 netns {hub}")
        for name, link, last in ((spoke, "e0", 1), (hub, "e1", 2)):
            sh(f"ip -n {name} addr add 10.97.0.{last}/24 dev {link}")
            sh(f"ip -n {name} addr add fd97::{last}/64 dev {link} nodad")
            sh(f"ip -n {name} link set {link} up")
            sh(f"ip -n {name} link set lo up")
        sh(f"ip -n {spoke} route add default via 10.97.0.2")
        sh(f"ip -n {spoke} -6 route add default via fd97::2")
        sh(f"ip netns exec {hub} sysctl -qw net.ipv4.ip_forward=1")
        sh(f"ip netns exec {hub} sysctl -qw net.ipv6.conf.all.forwarding=1")
        for family in ("-4", "-6"):
            sh(f"ip -n {hub} {family} rule add fwmark 1 lookup 100")
            default = "0.0.0.0/0" if family == "-4" else "::/0"
            sh(f"ip -n {hub} {family} route add local {default} dev lo table 100")
        yield spoke, hub


@pytest.mark.netns
@pytest.mark.parametrize("kind", ["redirect", "tproxy"])
@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_real_rules(hub: tuple[str, str], kind: str, address: str) -> None:
    """An IPv4 listener, and a dual-stack one, which must unwrap ::ffff:."""
    spoke, gateway = hub
    wanted = [("20.1.2.3", 443), ("20.1.2.4", 8443)]
    if address == "::":
        wanted += [("2001:db8::5", 443), ("2001:db8::6", 8443)]
    sh(f"ip netns exec {gateway} nft -f -", REDIRECT if kind == "redirect" else TPROXY)
    server = subprocess.Popen(
        ["ip", "netns", "exec", gateway, sys.executable, "-c", SERVER, kind, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == "ready\n"
        server.stdin.write(f"{len(wanted)}\n")
        server.stdin.flush()
        client = textwrap.dedent(
            """
            import socket, sys
            for to in sys.argv[1:]:
                host, _, port = to.rpartition("@")
                socket.create_connection((host, int(port)), timeout=5).close()
            """
        )
        targets = [f"{host}@{port}" for host, port in wanted]
        subprocess.run(
            ["ip", "netns", "exec", spoke, sys.executable, "-c", client, *targets], check=True
        )
        for host, port in wanted:
            source = "fd97::1" if ":" in host else "10.97.0.1"
            assert server.stdout.readline().split() == [host, str(port), source]
    finally:
        server.kill()
        server.communicate()

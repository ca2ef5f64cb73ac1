"""What the kernel tells of, and what is no news; against a real kernel."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.errors import KernelError
from egressproxy.kernel.changes import Changes
from egressproxy.kernel.nft_apply import Nft
from lab.namespaces import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.namespaces import Namespace

TABLE: Final = """\
table inet egressproxy {
  set s4_0123456789abcdef { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }
  set n4_0123456789abcdef { type ipv4_addr; flags timeout; }
  chain forward { type filter hook forward priority filter; policy drop; }
}
table inet other {
  chain c { }
}
"""
NEWS: Final = {
    "all is flushed": "nft flush ruleset",
    "our table is deleted": "nft delete table inet egressproxy",
    "a rule is added": "nft add rule inet egressproxy forward accept",
    "a policy is changed": "nft chain inet egressproxy forward { policy accept ; }",
    "a set is added": "nft add set inet egressproxy mine { type mark ; }",
    "a set of names is deleted": "nft delete set inet egressproxy n4_0123456789abcdef",
    "a range is added": "nft add element inet egressproxy s4_0123456789abcdef { 99.0.0.0/8 }",
    "a range is deleted": "nft delete element inet egressproxy s4_0123456789abcdef { 10.0.0.0/8 }",
    "a routing rule comes": "ip rule add pref 50 lookup 7",
    "a routing rule goes": "ip -6 rule del pref 32766",
    "forwarding is changed": "sysctl -qw net.ipv4.ip_forward=OTHER",
}
NO_NEWS: Final = {
    "another table": "nft add rule inet other c accept",
    "another table goes": "nft delete table inet other",
    "an address of a name": "nft add element inet egressproxy n4_0123456789abcdef { 10.1.1.1 }",
}


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    with namespaces(["changes"], tmp_path) as made, made["changes"].entered():
        Nft().apply(TABLE)
        yield made["changes"]


def run(namespace: Namespace, command: str) -> None:
    now = namespace.run("sysctl", "-n", "net.ipv4.ip_forward").strip()
    namespace.run(*command.replace("OTHER", str(1 - int(now))).split())


def waits(changes: Changes) -> bool:
    return bool(select.select(changes.descriptors(), [], [], 0)[0])


@pytest.mark.netns
@pytest.mark.parametrize("what", NEWS)
def test_news(what: str, namespace: Namespace) -> None:
    with Changes() as changes:
        assert not waits(changes)
        run(namespace, NEWS[what])
        assert waits(changes)
        assert changes.read()
        assert not changes.read()


@pytest.mark.netns
@pytest.mark.parametrize("what", NO_NEWS)
def test_no_news(what: str, namespace: Namespace) -> None:
    with Changes() as changes:
        run(namespace, NO_NEWS[what])
        assert waits(changes)
        assert not changes.read()
        assert not waits(changes)


@pytest.mark.netns
def test_a_flood_that_was_dropped_is_news(namespace: Namespace) -> None:
    """The receive buffer is full: what was in the rest nobody knows."""
    script = "".join(f"add rule inet other c tcp dport {1 + n} accept\n" for n in range(20_000))
    with Changes() as changes:
        namespace.run("nft", "-f", "-", stdin=script)
        found = []
        while waits(changes):
            found.append(changes.read())
    assert any(found)


@pytest.mark.netns
def test_without_the_capability(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("egressproxy.kernel.changes.socket.socket", Refusing)
    with pytest.raises(KernelError, match="CAP_NET_ADMIN"):
        Changes()

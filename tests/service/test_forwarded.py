"""Forwarded connections under a new policy: who may stay, and that the others are ended."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest

from egressproxy.kernel.conntrack import Entry
from egressproxy.kernel.firewall_options import PRIVATE, FirewallOptions
from egressproxy.kernel.kernel_policy import kernel_policy
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.nft_script import table_script
from egressproxy.kernel.packet import ICMP, TCP, UDP
from egressproxy.kernel.routing import ensure_guard
from egressproxy.kernel.sysctls import ensure_sysctls
from egressproxy.names import DnsName
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.rules import Mode, OnReload
from egressproxy.resolve.address_book import AddressBook
from egressproxy.resolve.guard import Guard
from egressproxy.service.forwarded import Judge, Revocation, revoke
from tests.kernel.one_nic import SERVER, one_nic, tcp, udp
from tests.policy.building import DENY, NOON, YESTERDAY, networks, policy, rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from egressproxy.kernel.packet import Packet
    from egressproxy.policy.rules import Policy
    from tests.kernel.one_nic import OneNic

SQL: Final = rule("rules/sql", "30.0.0.0/24", ports="tcp:1433")
NTP: Final = rule("rules/ntp", "ntp.example", ports="udp:123")
WEB: Final = rule("rules/web", "www.example", ports="https")
NAMED: Final = "30.9.0.1"


def judge(made: Policy, **more: Any) -> Judge:
    book = AddressBook(grace_s=900, entries=100, clock=lambda: 0.0)
    book.learn(DnsName("ntp.example"), [NAMED, "10.50.0.4"], 60)
    given: dict[str, Any] = {
        "ruleset": compile_policy(made),
        "is_audit": kernel_policy(made, NOON).is_audit,
        "book": book,
        "guard": Guard(),
        "clients": PRIVATE,
        "now": NOON,
    }
    return Judge(**{**given, **more})


def entry(protocol: int, dst: str, dport: int, src: str = "10.1.0.1") -> Entry:
    numbers = {"id": 1, "family": socket.AF_INET, "mark": 0, "status": 0}
    return Entry(
        protocol=protocol,
        src=src,
        sport=40000,
        dst=dst,
        dport=dport,
        reply_src=dst,
        reply_sport=dport,
        reply_dst=src,
        reply_dport=40000,
        **numbers,
    )


CASES: Final = {
    "allowed": (policy(SQL), entry(TCP, "30.0.0.1", 1433), True),
    "another port": (policy(SQL), entry(TCP, "30.0.0.1", 1434), False),
    "another protocol": (policy(SQL), entry(UDP, "30.0.0.1", 1433), False),
    "no rule": (policy(), entry(TCP, "30.0.0.1", 1433), False),
    "denied first": (
        policy(rule("rules/no", "30.0.0.1", ports="tcp:1433", action=DENY), SQL),
        entry(TCP, "30.0.0.1", 1433),
        False,
    ),
    "another source": (
        policy(rule("rules/sql", "any", ports="tcp:1433", sources=networks("10.2.0.0/16"))),
        entry(TCP, "30.0.0.1", 1433),
        False,
    ),
    "over": (
        policy(rule("rules/sql", "any", ports="tcp:1433", until=YESTERDAY)),
        entry(TCP, "30.0.0.1", 1433),
        False,
    ),
    "by name": (policy(NTP), entry(UDP, NAMED, 123), True),
    "the name was given another address": (policy(NTP), entry(UDP, "30.9.0.2", 123), False),
    "a private address of the name": (policy(NTP), entry(UDP, "10.50.0.4", 123), False),
    "a private address that the rule lists": (
        policy(
            rule("rules/ntp", "ntp.example", ports="udp:123", addresses=networks("10.50.0.0/24"))
        ),
        entry(UDP, "10.50.0.4", 123),
        True,
    ),
    "an application port": (policy(WEB), entry(TCP, "30.0.0.1", 443), False),
    "what has no ports": (policy(SQL), entry(ICMP, "30.0.0.1", 0), False),
    "audit": (policy(SQL, mode=Mode.AUDIT), entry(TCP, "30.0.0.1", 22), True),
    "audit, what has no ports": (policy(mode=Mode.AUDIT), entry(ICMP, "30.0.0.1", 0), True),
    "audit that is over": (
        policy(mode=Mode.AUDIT, audit_until=YESTERDAY),
        entry(TCP, "30.0.0.1", 22),
        False,
    ),
    "audit, the metadata service": (
        policy(mode=Mode.AUDIT),
        entry(TCP, "169.254.169.254", 80),
        False,
    ),
    "a stranger": (
        policy(rule("rules/all", "any", ports="tcp:1-65535")),
        entry(TCP, "30.0.0.1", 22, "99.0.0.1"),
        False,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_who_may_stay(case: str) -> None:
    made, connection, allowed = CASES[case]
    assert judge(made).allows(connection) is allowed


@pytest.fixture
def net(tmp_path: Path) -> Iterator[OneNic]:
    """A hub that forwards tcp 7000 and udp 7000 to the server."""
    both = rule("rules/both", SERVER[4], ports="tcp:7000 udp:7000")
    script = table_script(kernel_policy(policy(both), NOON), FirewallOptions())
    with one_nic(tmp_path) as built, built.hub.entered():
        ensure_guard()
        Nft().apply(script)
        ensure_sysctls(tmp_path / "state.json")
        yield built


@pytest.mark.netns
@pytest.mark.anyio
@pytest.mark.parametrize("on_reload", list(OnReload))
async def test_what_is_denied_is_ended_or_kept(net: OneNic, on_reload: OnReload) -> None:
    left = policy(rule("rules/udp", SERVER[4], ports="udp:7000"), on_reload=on_reload)
    ended: list[Packet] = []
    with ExitStack() as stack:
        listener = stack.enter_context(tcp(net.server, SERVER[4], 7000))
        server = stack.enter_context(udp(net.server, SERVER[4], 7000))
        client = stack.enter_context(net.client.connect(SERVER[4], 7000))
        accepted = stack.enter_context(listener.accept()[0])
        asking = stack.enter_context(udp(net.client, "10.97.0.1"))
        asking.sendto(b"asked", server.getsockname())
        server.sendto(b"answer", server.recvfrom(100)[1])
        assert asking.recv(100) == b"answer"

        done = await revoke(judge(left), ended.append)

        asking.sendto(b"again", server.getsockname())
        assert server.recv(100) == b"again"
        client.sendall(b"more")
        if on_reload is OnReload.KEEP:
            assert done == Revocation(kept=1)
            assert accepted.recv(100) == b"more"
            assert not ended
        else:
            assert done == Revocation(revoked=1)
            accepted.settimeout(0.3)
            with pytest.raises(TimeoutError):
                accepted.recv(100)
            assert [(each.dst, each.protocol, each.dst_port) for each in ended] == [
                (SERVER[4], TCP, 7000)
            ]
    assert await revoke(judge(left), ended.append) == (
        Revocation(kept=1) if on_reload is OnReload.KEEP else Revocation()
    )

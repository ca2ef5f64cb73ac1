"""The law: for any policy and packet the kernel does what ``decide`` says, in every mode."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from egressproxy.kernel.firewall_options import FirewallOptions, Snat
from egressproxy.kernel.kernel_policy import kernel_policy
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.nft_names import Outcome, name_sets, rule_counter
from egressproxy.kernel.nft_script import table_script, transition_script
from egressproxy.names import DnsName
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.networks import NEVER_DIALLED
from egressproxy.policy.rules import Mode
from egressproxy.policy.verdict import Reason
from tests.kernel.frames import Kind, Sent, Wire
from tests.kernel.one_nic import CLIENT, HUB, SERVER, one_nic
from tests.policy.building import (
    ALLOW,
    DENY,
    NOON,
    TCP,
    TODAY,
    TOMORROW,
    UDP,
    YESTERDAY,
    flow,
    networks,
    policy,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.kernel.nft_apply import TableState
    from egressproxy.policy.rules import Policy, Rule
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.policy.verdict import Verdict
    from lab.namespaces import Namespace

pytestmark = pytest.mark.netns

# Without SNAT, because two clients cannot share one address towards one host by a protocol that has
# no ports.
OPTIONS: Final = FirewallOptions(redirect_port=15001, snat=Snat.NEVER)

# The universe: few of everything, so that random rules and packets meet.

CLIENTS: Final = ("10.1.0.1", "10.1.0.9", "192.168.7.7", "fd01::1", "fd01::9", "fd02::1")
STRANGERS: Final = ("99.0.0.1", "2001:db8:ffff::1", *HUB.values())
"""Addresses that are not served, and the gateway's own, which nobody else may have."""
SERVERS: Final = (
    *("30.0.0.1", "30.0.0.2", "30.0.1.1", "31.5.5.5", "10.77.0.1"),
    *("2001:db9::1", "2001:db9::2", "2001:db9:1::1", "fd77::1"),
    *("169.254.169.254", "168.63.129.16"),
)
NAMED: Final = {
    "30.9.0.1": "ntp.example",
    "2001:db9:9::1": "ntp.example",
    "30.9.0.2": "sql.example",
}
PORTS: Final = (22, 53, 80, 123, 443, 8443)
FROM: Final = ("10.1.0.0/24", "10.1.0.1", "10.0.0.0/8", "0.0.0.0/0", "fd01::/64", "fd01::9", "::/0")
MANY: Final = tuple(f"30.0.{i}.{i}" for i in range(1, 12))
TO: Final = (
    *("30.0.0.0/24", "30.0.0.1", "30.0.0.0/31", "30.0.0.0/8", "0.0.0.0/0", "10.77.0.0/16"),
    *("2001:db9::/32", "2001:db9::1", "::/0", "fd00::/8", "169.254.0.0/16"),
)
SPANS: Final = (
    *("tcp:22", "tcp:1-79", "tcp:443", "tcp:1-65535", "tcp:80", "tcp:81-500", "tcp:8443"),
    *("udp:53", "udp:443", "udp:1-65535", "udp:100-200"),
)
LAST: Final = Sent(Kind.UDP, "10.250.0.9", "30.250.0.9", 9)
LAST_RULE: Final = rule("rules/last", LAST.dst, ports="udp:9", sources=f"{LAST.src}/32")
"""First in every policy, so that a packet of a run surely arrives, after all others."""

DAYS: Final = st.sampled_from([None, None, None, YESTERDAY, TODAY, TOMORROW])


@st.composite
def network_rules(draw: st.DrawFn, number: int) -> Rule:
    action = draw(st.sampled_from([ALLOW, ALLOW, DENY]))
    to = draw(st.lists(st.sampled_from(TO), max_size=3, unique=True))
    to += draw(st.sampled_from([(), (), MANY]))
    if action is ALLOW:
        to += draw(st.sampled_from([[], [], ["ntp.example"], ["ntp.example", "sql.example"]]))
    if not to or draw(st.integers(0, 7)) == 0:
        to.append("any")
    more: dict[str, Any] = {
        "until": draw(DAYS),
        "audit": draw(st.sampled_from([False, False, True])),
    }
    if more["audit"]:
        more["audit_until"] = draw(DAYS)
    if draw(st.booleans()):
        more["sources"] = networks(*draw(st.lists(st.sampled_from(FROM), max_size=2, unique=True)))
    spans = draw(st.lists(st.sampled_from(SPANS), min_size=1, max_size=3, unique=True))
    return rule(f"rules/{number}", *to, ports=" ".join(spans), action=action, **more)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    rules = [draw(network_rules(number)) for number in range(draw(st.integers(0, 5)))]
    ports = draw(st.lists(st.sampled_from(["https", "http", "tls:8443"]), max_size=3, unique=True))
    if ports:
        rules.append(rule("rules/application", "www.example", ports=" ".join(ports)))
    mode = draw(st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.AUDIT]))
    return policy(
        LAST_RULE, *rules, mode=mode, audit_until=draw(DAYS) if mode is Mode.AUDIT else None
    )


@st.composite
def packets(draw: st.DrawFn) -> Sent:
    dst = draw(st.sampled_from([*SERVERS, *NAMED]))
    sources = [src for src in (*CLIENTS, *CLIENTS, *STRANGERS) if (":" in src) == (":" in dst)]
    kind = draw(st.sampled_from([Kind.TCP_SYN, Kind.TCP_SYN, Kind.UDP, *Kind]))
    return Sent(kind, draw(st.sampled_from(sources)), dst, draw(st.sampled_from(PORTS)))


# What must become of a packet


class Fate(StrEnum):
    FORWARDED = "forwarded"
    DROPPED = "dropped"
    PROXIED = "proxied"


@dataclass(frozen=True)
class Expected:
    """What becomes of a packet, and the counter that counts it (none: not said)."""

    fate: Fate
    counter: str


class Judge:
    """``Ruleset.decide`` asked about packets."""

    def __init__(self, document: Policy) -> None:
        self.ruleset: Ruleset = compile_policy(document)
        self.ports = {port for _, port in self.ruleset.application_ports()}

    def __call__(self, sent: Sent) -> Expected:
        if sent.src in STRANGERS:
            known = Outcome.INVALID if sent.kind in (Kind.TCP_ACK, Kind.SCTP) else Outcome.NO_CLIENT
            return Expected(Fate.DROPPED, known)
        if sent.kind in (Kind.TCP_ACK, Kind.SCTP):
            return Expected(Fate.DROPPED, Outcome.INVALID)
        is_forbidden = any(_is_in(sent.dst, network) for network, _ in NEVER_DIALLED)
        if not is_forbidden and (network := self._ask(sent, both=False)) is not None:
            return Expected(_fate(network), rule_counter(network.rule_id or ""))
        if sent.is_tcp and sent.port in self.ports:
            return Expected(Fate.PROXIED, Outcome.PROXIED)
        if is_forbidden:
            return Expected(Fate.DROPPED, Outcome.FORBIDDEN)
        verdict = self._ask(sent, both=True)
        assert verdict is not None
        if verdict.reason is Reason.QUIC_REFUSED:
            return Expected(Fate.DROPPED, Outcome.QUIC_REFUSED)
        outcome = Outcome.WOULD_DENY if verdict.would_deny else Outcome.DEFAULT_DENY
        return Expected(_fate(verdict), outcome)

    def _ask(self, sent: Sent, *, both: bool) -> Verdict | None:
        """What is no TCP or UDP is asked about as UDP on a port that no rule has."""
        port = sent.port if sent.is_tcp or sent.is_udp else 0
        name = NAMED.get(sent.dst)
        asked = flow(name, port, TCP if sent.is_tcp else UDP, src=sent.src, dst=sent.dst)
        return (
            self.ruleset.decide(asked, NOON) if both else self.ruleset.decide_network(asked, NOON)
        )


def _fate(verdict: Verdict) -> Fate:
    return Fate.FORWARDED if verdict.is_allow else Fate.DROPPED


def _is_in(address: str, network: Any) -> bool:
    return ip_address(address) in network


# The kernel


class Gateway:
    """The hub with our table in it; what the server's card gets is what was forwarded."""

    def __init__(self, hub: Namespace, wire: Wire) -> None:
        self.hub = hub
        self.wire = wire
        self.nft = Nft()

    def load(self, script: str) -> None:
        with self.hub.entered():
            self.nft.apply(script)
            for name in set(NAMED.values()):
                self._fill(DnsName(name))

    def state(self, *, elements: bool = False) -> TableState:
        with self.hub.entered():
            found = self.nft.table_state(elements=elements)
        assert found is not None
        return found

    def _fill(self, name: DnsName) -> None:
        state = self.state()
        for version, each in zip((4, 6), name_sets(name), strict=True):
            found = [a for a, n in NAMED.items() if n == name and ip_address(a).version == version]
            if each in state.sets and found:
                self.nft.add_elements(each, [(address, 60) for address in found])

    def counts(self) -> Counter[str]:
        state = self.state()
        return Counter({name: counter.packets for name, counter in state.counters.items()})


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with one_nic(tmp_path_factory.mktemp("law")) as net:
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            net.sysctl(f"net/{name}", "1")
        for name in ("rp_filter", "send_redirects"):
            net.sysctl(f"net/ipv4/conf/all/{name}", "0")
            net.sysctl(f"net/ipv4/conf/eth0/{name}", "0")
        for version in (4, 6):
            net.hub.run("ip", "route", "add", "default", "via", SERVER[version])
            mac = _mac(net.server)
            net.hub.run("ip", "neigh", "add", SERVER[version], "lladdr", mac, "dev", "eth0")
        for address in CLIENTS:  # for what the gateway itself says to them
            version = ip_address(address).version
            net.hub.run("ip", "route", "add", address, "via", CLIENT[version])
        wire = Wire(net.client, _mac(net.hub), net.server)
        yield Gateway(net.hub, wire)
        wire.close()


def _mac(namespace: Namespace) -> str:
    (link,) = json.loads(namespace.run("ip", "-json", "link", "show", "eth0"))
    return str(link["address"])


LAW: Final = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@LAW
@given(policies(), st.lists(packets(), min_size=1, max_size=60))
def test_kernel_and_decide_agree(gateway: Gateway, document: Policy, sent: list[Sent]) -> None:
    judge = Judge(document)
    gateway.load(table_script(kernel_policy(document, NOON), OPTIONS))
    arrived = gateway.wire.arrivals(sent, LAST)
    expected = [judge(each) for each in sent]
    for each, came, must in zip(sent, arrived, expected, strict=True):
        assert came == (must.fate is Fate.FORWARDED), (each, must)
    counted = gateway.counts()
    del counted[Outcome.INPUT]  # the neighbours' own talk
    assert counted.pop(rule_counter("rules/last")) == 1
    assert +counted == Counter(must.counter for must in expected)


@LAW
@given(policies(), policies(), st.lists(packets(), min_size=1, max_size=40))
@example(  # the new policy is an audit and proxies what the old one forwards: no forwarding
    policy(LAST_RULE, rule("rules/0", "any", ports="tcp:443")),
    policy(LAST_RULE, rule("rules/1", "www.example", ports="https"), mode=Mode.AUDIT),
    [Sent(Kind.TCP_SYN, "10.1.0.1", "30.0.0.1", 443)],
)
def test_between_two_policies_only_what_both_forward_passes(
    gateway: Gateway, old: Policy, new: Policy, sent: list[Sent]
) -> None:
    gateway.load(transition_script(kernel_policy(old, NOON), kernel_policy(new, NOON), OPTIONS))
    arrived = gateway.wire.arrivals(sent, LAST)
    by_old, by_new = Judge(old), Judge(new)
    common = by_old.ports & by_new.ports
    fates = [_between(by_old(each).fate, by_new(each).fate, each, common) for each in sent]
    for each, came, must in zip(sent, arrived, fates, strict=True):
        assert came == (must is Fate.FORWARDED), (each, must)
    assert gateway.counts()[Outcome.PROXIED] == fates.count(Fate.PROXIED)


def _between(old: Fate, new: Fate, sent: Sent, common: set[int]) -> Fate:
    if Fate.DROPPED in (old, new):
        return Fate.DROPPED
    if old is new is Fate.FORWARDED:
        return Fate.FORWARDED
    return Fate.PROXIED if sent.is_tcp and sent.port in common else Fate.DROPPED


@LAW
@given(st.lists(policies(), min_size=2, max_size=3), st.data())
def test_reloads_one_upon_another_are_the_last_policy(
    gateway: Gateway, documents: list[Policy], data: st.DataObject
) -> None:
    """With what the kernel has told, sets and counters are kept; the judgement is the new one's."""
    first, *others = (kernel_policy(document, NOON) for document in documents)
    gateway.load(table_script(first, OPTIONS))
    before = first
    for each in others:
        gateway.load(transition_script(before, each, OPTIONS, gateway.state()))
        gateway.load(table_script(each, OPTIONS, gateway.state()))
        before = each
    sent = data.draw(st.lists(packets(), min_size=1, max_size=20))
    arrived = gateway.wire.arrivals(sent, LAST)
    judge = Judge(documents[-1])
    assert arrived == [judge(each).fate is Fate.FORWARDED for each in sent]
    reloaded = gateway.state(elements=True)
    gateway.load(table_script(before, OPTIONS))
    fresh = gateway.state(elements=True)
    assert (reloaded.chains, reloaded.sets, reloaded.counters.keys(), reloaded.digest) == (
        fresh.chains,
        fresh.sets,
        fresh.counters.keys(),
        fresh.digest,
    )

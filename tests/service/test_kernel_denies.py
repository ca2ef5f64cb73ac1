"""Packets as the kernel logs them, and the records they become; then a real kernel's."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import json
import socket
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from egressproxy.kernel.firewall_options import FirewallOptions
from egressproxy.kernel.kernel_policy import kernel_policy
from egressproxy.kernel.nflog import LoggedPacket, Nflog, Tally
from egressproxy.kernel.nft_script import table_script
from egressproxy.kernel.packet import ICMP, ICMPV6, TCP, UDP, Packet
from egressproxy.names import DnsName
from egressproxy.observe.cells import KernelCount
from egressproxy.observe.counters import Counters
from egressproxy.observe.log import RecordLog
from egressproxy.observe.record import NameSource, Plane
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.rules import Mode
from egressproxy.policy.verdict import Action, Pass, Reason
from egressproxy.resolve.address_book import AddressBook
from egressproxy.resolve.guard import Guard
from egressproxy.service.journal import configure_journal
from egressproxy.service.kernel_denies import BATCH_DATAGRAMS, NO_CLIENT, NOT_OPEN, KernelDenies
from egressproxy.settings import Settings
from lab.namespaces import namespaces
from tests.policy.building import NOON, TODAY, YESTERDAY, networks, policy, rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from egressproxy.observe.record import FlowRecord
    from egressproxy.policy.ruleset import Ruleset
    from lab.namespaces import Namespace

NODE, STRANGER, OWN = "10.240.0.4", "203.0.113.7", "10.0.0.4"
SQL, NTP, PRIVATE, ELSEWHERE = "20.9.1.1", "185.125.190.56", "10.50.0.9", "20.200.0.1"
RULES = (
    rule("rules/no-mail", "any", ports="tcp:25", action=Action.DENY),
    rule("rules/sql", "20.9.0.0/16", ports="tcp:1433"),
    rule("rules/ntp", "ntp.ubuntu.com", ports="udp:123"),
    rule(
        "rules/link", "link.contoso.example", ports="tcp:5432", addresses=networks("10.50.0.0/24")
    ),
    rule("rules/db", "db.contoso.example", ports="tcp:5432"),
    rule("rules/old", "20.8.0.0/16", ports="tcp:22", until=YESTERDAY),
    rule("rules/trial", "20.7.0.0/16", ports="tcp:22", action=Action.DENY, audit=True),
    rule("rules/web", "*.contoso.example", ports="https"),
)
RULESET = compile_policy(policy(*RULES, sources=(("build", networks("10.240.0.0/16")),)))
AUDITING = compile_policy(policy(*RULES, mode=Mode.AUDIT, audit_until=TODAY))


class Log:
    """What stands in for a group: datagrams of packets."""

    def __init__(self) -> None:
        self.waiting: list[list[LoggedPacket]] = []
        self.tally = Tally()
        self.asked: list[int] = []

    def read(self, datagrams: int) -> list[LoggedPacket]:
        self.asked.append(datagrams)
        taken, self.waiting = self.waiting[:datagrams], self.waiting[datagrams:]
        return [packet for datagram in taken for packet in datagram]


class World:
    """One ``KernelDenies`` with everything around it."""

    def __init__(self, ruleset: Ruleset = RULESET) -> None:
        self.log = Log()
        self.book = AddressBook(grace_s=900, entries=1000)
        self.records: list[FlowRecord] = []
        self.counters = Counters.create(2)
        self.denies = KernelDenies(
            self.log,  # type: ignore[arg-type]  # as much of a group as is used
            ruleset=lambda: ruleset,
            guard=lambda: Guard([OWN]),
            book=self.book,
            sink=self,
            counters=self.counters.supervisor(),
            clients=networks("10.0.0.0/8", "fd00::/8"),
            wall_clock=lambda: NOON,
        )

    def write(self, record: FlowRecord) -> None:
        self.records.append(record)

    def told(self, prefix: str, packet: Packet) -> FlowRecord:
        self.log.waiting.append([LoggedPacket(prefix, packet)])
        self.denies.turn()
        return self.records[-1]

    def counted(self, what: KernelCount) -> int:
        return self.counters.totals().kernel[what]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    configure_journal(io.StringIO())
    yield made
    structlog.reset_defaults()
    made.counters.close()


def tcp(dst: str, port: int, src: str = NODE) -> Packet:
    return Packet(src, dst, TCP, 50123, port)


def udp(dst: str, port: int, src: str = NODE) -> Packet:
    return Packet(src, dst, UDP, 50123, port)


DENY, AGREED = Action.DENY, 0
# prefix, packet, names of the destination -> reason, rule, name, note, disagreements
DENIES: dict[str, tuple[str, Packet, tuple[str, ...], tuple[Any, ...]]] = {
    "nothing matched": ("deny", tcp(ELSEWHERE, 22), (), (Reason.DEFAULT_DENY, None, None, "", 0)),
    "a deny rule": ("deny", tcp(ELSEWHERE, 25), (), (Reason.RULE, "rules/no-mail", None, "", 0)),
    "a rule whose time is over": (
        "deny", tcp("20.8.0.1", 22), (), (Reason.EXPIRED_RULE, "rules/old", None, "", 0)
    ),
    "a name for the address": (
        "deny", tcp(NTP, 22), ("ntp.ubuntu.com",),
        (Reason.DEFAULT_DENY, None, "ntp.ubuntu.com", "needed-by: aks/ntp", 0),
    ),
    "the name that was given last": (
        "deny", tcp(NTP, 22), ("ntp.ubuntu.com", "archive.ubuntu.com"),
        (Reason.DEFAULT_DENY, None, "archive.ubuntu.com", "", 0),
    ),
    "the catalog's word on the name": (
        "deny", tcp(ELSEWHERE, 22), ("md-x.blob.storage.azure.net",),
        (Reason.DEFAULT_DENY, None, "md-x.blob.storage.azure.net", "harmless", 0),
    ),
    "a private answer for an allowed name": (
        "deny", tcp(PRIVATE, 5432), ("db.contoso.example",),
        (Reason.FORBIDDEN_ADDRESS, "rules/db", "db.contoso.example", "", 0),
    ),
    "the kernel's own word for such addresses": (
        "forbidden", tcp("169.254.169.254", 80), (), (Reason.FORBIDDEN_ADDRESS, None, None, "", 0)
    ),
    "an allow by address": ("deny", tcp(SQL, 1433), (), (Reason.DEFAULT_DENY, None, None, "", 1)),
    "an allow by name": (
        "deny", udp(NTP, 123), ("ntp.ubuntu.com",),
        (Reason.DEFAULT_DENY, None, "ntp.ubuntu.com", "needed-by: aks/ntp", 1),
    ),
    "an allow by an older name": (
        "deny", udp(NTP, 123), ("ntp.ubuntu.com", "other.example"),
        (Reason.DEFAULT_DENY, None, "other.example", "", 1),
    ),
    "a deny that is on trial": (
        "deny", tcp("20.7.0.1", 22), (), (Reason.DEFAULT_DENY, None, None, "", 1)
    ),
    "a wildcard for another protocol": (
        "deny", tcp(ELSEWHERE, 443), ("www.contoso.example",),
        (Reason.DEFAULT_DENY, None, "www.contoso.example", "", 0),
    ),
    "quic": ("quic", udp(ELSEWHERE, 443), (), (Reason.QUIC_REFUSED, None, None, "", 0)),
    "a ping": (
        "deny", Packet(NODE, ELSEWHERE, ICMP, icmp_type=8), (),
        (Reason.DEFAULT_DENY, None, None, "", 0),
    ),
    "to the gateway itself": ("input", tcp(OWN, 22), (), (Reason.LOOP, None, None, NOT_OPEN, 0)),
    "a stranger": (
        "deny", tcp(SQL, 1433, STRANGER), (), (Reason.DEFAULT_DENY, None, None, NO_CLIENT, 0)
    ),
    "one with our own address": (
        "deny", tcp(SQL, 1433, OWN), (), (Reason.DEFAULT_DENY, None, None, NO_CLIENT, 0)
    ),
    "a word that nobody knows": (
        "what?", tcp(ELSEWHERE, 22), (), (Reason.DEFAULT_DENY, None, None, "", 0)
    ),
    "a later fragment": (
        "deny", Packet(NODE, SQL, UDP), (), (Reason.DEFAULT_DENY, None, None, "", 0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DENIES)
def test_denies(world: World, case: str) -> None:
    prefix, packet, names, (reason, rule_id, name, note, disagreements) = DENIES[case]
    for each in names:
        world.book.learn(DnsName(each), (packet.dst,), 60)
    record = world.told(prefix, packet)
    assert (record.action, record.would_deny, record.close_reason) == (DENY, False, "refused")
    assert (record.reason, record.rule, record.name, record.note) == (reason, rule_id, name, note)
    assert record.name_source is (NameSource.DNS if name else NameSource.NONE)
    assert record.plane is Plane.NETWORK
    assert (record.src_ip, record.dst_ip, record.dst_port) == (
        packet.src,
        packet.dst,
        packet.dst_port,
    )
    assert world.counted(KernelCount.DISAGREEMENTS) == disagreements
    assert world.counters.totals().flows[Plane.NETWORK, DENY, reason] == 1


AUDITED = {
    "nothing matched": (AUDITING, tcp(ELSEWHERE, 22), Reason.DEFAULT_DENY, None, 0),
    "a deny rule": (AUDITING, tcp(ELSEWHERE, 25), Reason.RULE, "rules/no-mail", 0),
    "a rule on trial": (RULESET, tcp("20.7.0.1", 22), Reason.RULE, "rules/trial", 0),
    "a ping": (AUDITING, Packet(NODE, SQL, ICMPV6), Reason.DEFAULT_DENY, None, 0),
    "a plain allow": (AUDITING, tcp(SQL, 1433), Reason.DEFAULT_DENY, None, 1),
    "an audit that is over here": (RULESET, tcp(ELSEWHERE, 22), Reason.DEFAULT_DENY, None, 1),
}


@pytest.mark.parametrize("case", AUDITED)
def test_what_audit_let_pass(case: str) -> None:
    ruleset, packet, reason, rule_id, disagreements = AUDITED[case]
    world = World(ruleset)
    record = world.told("audit", packet)
    assert (record.action, record.would_deny, record.close_reason) == (Action.ALLOW, True, "open")
    assert (record.reason, record.rule) == (reason, rule_id)
    assert world.counted(KernelCount.DISAGREEMENTS) == disagreements
    assert world.counters.totals().would_deny[Plane.NETWORK] == 1


def test_a_whole_record(world: World) -> None:
    record = world.told("deny", tcp(ELSEWHERE, 25))
    assert record.protocol == "tcp"
    assert (record.src_port, record.source_group) == (50123, "build")
    assert (record.time, record.decided_by) == (NOON, Pass.NETWORK)
    assert record.policy == RULESET.digest
    assert record.flow_id == f"k-{int(NOON * 1000):x}-1"
    assert world.told("deny", tcp(ELSEWHERE, 25)).flow_id == f"k-{int(NOON * 1000):x}-2"


PROTOCOLS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6", 47: "47", 255: "255"}


@pytest.mark.parametrize("number", PROTOCOLS)
def test_protocols(world: World, number: int) -> None:
    assert world.told("deny", Packet(NODE, SQL, number)).protocol == PROTOCOLS[number]


def test_names_of_an_address_are_asked_up_to_a_limit(world: World) -> None:
    """The oldest of many names would allow it; nobody looks that far, and nothing is wrong."""
    world.book.learn(DnsName("ntp.ubuntu.com"), (NTP,), 60)
    for number in range(20):
        world.book.learn(DnsName(f"n{number}.example"), (NTP,), 60)
    assert world.told("deny", udp(NTP, 123)).name == "n19.example"
    assert world.counted(KernelCount.DISAGREEMENTS) == 0


def test_a_turn_is_bounded(world: World) -> None:
    world.log.waiting = [[LoggedPacket("deny", tcp(SQL, port))] for port in range(1, 20)]
    world.denies.turn()
    assert len(world.records) == BATCH_DATAGRAMS == world.counted(KernelCount.PACKETS)
    assert world.log.asked == [BATCH_DATAGRAMS]


def test_losses_are_counted_and_said_once_a_while() -> None:
    journal = io.StringIO()
    configure_journal(journal)
    world = World()
    for lost in (5, 12):
        world.log.tally.lost = lost
        world.log.tally.overruns += 1
        world.denies.turn()
    world.log.tally.malformed = 3
    world.denies.turn()
    structlog.reset_defaults()
    assert world.counted(KernelCount.LOST) == 12
    assert world.counted(KernelCount.OVERRUNS) == 2
    assert world.counted(KernelCount.MALFORMED) == 3
    assert len(journal.getvalue().splitlines()) == 1
    assert json.loads(journal.getvalue())["lost"] == 5


# A real kernel, and the record log

RULES_TEXT = """
table inet shown {
  chain out {
    type filter hook output priority 0; policy accept;
    udp dport 123 log prefix "deny" group 100 drop
    udp dport 124 log prefix "audit" group 100 accept
  }
}
"""


@pytest.mark.netns
def test_a_flood_of_a_real_kernel_is_a_few_records(tmp_path: Path, no_blocking: None) -> None:
    sent = 3000
    path = tmp_path / "records.jsonl"
    counters = Counters.create(1)
    row = counters.supervisor()
    with ExitStack() as stack:
        inside = stack.enter_context(namespaces(["deny"], tmp_path / "etc"))["deny"]
        inside.run("ip", "addr", "add", f"{NTP}/32", "dev", "lo")
        inside.run("nft", "-f", "-", stdin=RULES_TEXT)
        with inside.entered():
            nflog = Nflog(100)
            sender = stack.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        log = RecordLog(path, Settings(), row)
        book = AddressBook(grace_s=900, entries=1000)
        book.learn(DnsName("ntp.example"), (NTP,), 60)
        denies = KernelDenies(
            nflog,
            ruleset=lambda: AUDITING,
            guard=Guard,
            book=book,
            sink=log,
            counters=row,
            wall_clock=lambda: NOON,
        )

        async def serve() -> None:
            async with denies, asyncio.timeout(20):
                for number in range(sent):
                    with suppress(PermissionError):
                        sender.sendto(b"x", (NTP, 123 + number % 2))
                while counters.totals().kernel[KernelCount.PACKETS] < sent:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

        asyncio.run(serve())
        log.close()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(records) <= 6, "folded, those that audit let pass too"
    for action, port in (("deny", 123), ("allow", 124)):
        found = [r for r in records if (r["action"], r["dst_port"]) == (action, port)]
        assert sum(r["count"] for r in found) == sent // 2
        assert {(r["plane"], r["protocol"], r["name"], r["name_source"]) for r in found} == {
            ("network", "udp", "ntp.example", "dns")
        }
    totals = counters.totals()
    assert totals.kernel[KernelCount.LOST] == 0
    assert totals.kernel[KernelCount.DISAGREEMENTS] == sent // 2, "one deny in an audit"
    assert ipaddress.ip_address(records[0]["dst_ip"]) == ipaddress.ip_address(NTP)
    counters.close()


# The gateway's own table

SPOKE6, PUBLIC6 = "fd00:240::4", "2603:1030:1::5"
TABLE_RULES = policy(
    *RULES, rule("rules/trial-web", "20.6.0.0/16", ports="udp:9", audit=True)
)  # fmt: skip


@contextmanager
def spoke_and_hub(etc: Path) -> Iterator[dict[str, Namespace]]:
    """A spoke whose only route is the hub, which forwards what its table lets it."""
    with namespaces(["spoke", "hub"], etc) as made:
        spoke, hub = made["spoke"], made["hub"]
        link = ("ip", "link", "add", "up0", "type", "veth", "peer", "name", "down0")
        spoke.run(*link, "netns", hub.name)
        for inside, device, last in ((spoke, "up0", 4), (hub, "down0", 1)):
            inside.run("ip", "addr", "add", f"10.240.0.{last}/24", "dev", device)
            inside.run("ip", "addr", "add", f"fd00:240::{last}/64", "dev", device, "nodad")
            inside.run("ip", "link", "set", device, "up")
        spoke.run("ip", "addr", "add", f"{STRANGER}/32", "dev", "up0")
        spoke.run("ip", "route", "add", "default", "via", "10.240.0.1")
        spoke.run("ip", "-6", "route", "add", "default", "via", "fd00:240::1")
        hub.run("ip", "route", "add", "default", "via", "10.240.0.4")
        hub.run("ip", "-6", "route", "add", "default", "via", "fd00:240::4")
        hub.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        yield made


def throw(spoke: Namespace, packet: Packet) -> None:
    """Send one packet from the spoke; what comes back is nobody's."""
    family = socket.AF_INET6 if ":" in packet.dst else socket.AF_INET
    kind = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}.get(packet.protocol, socket.SOCK_RAW)
    with spoke.entered(), socket.socket(family, kind, packet.protocol) as sock:
        sock.setblocking(False)
        sock.bind((packet.src, 0))
        if packet.protocol == TCP:
            sock.connect_ex((packet.dst, packet.dst_port))
        else:
            # An echo request of nothing but its type: its checksum (RFC 792) is what is left.
            head = bytes([packet.icmp_type, 0, 0xFF - packet.icmp_type, 0xFF])
            sock.sendto(head + bytes(4), (packet.dst, packet.dst_port))


# packet -> reason, rule, name, note
THROWN: dict[str, tuple[Packet, tuple[Any, ...]]] = {
    "tcp": (tcp(ELSEWHERE, 22), (Reason.DEFAULT_DENY, None, None, "")),
    "udp": (udp(ELSEWHERE, 53), (Reason.DEFAULT_DENY, None, None, "")),
    "ping": (Packet(NODE, ELSEWHERE, ICMP, icmp_type=8), (Reason.DEFAULT_DENY, None, None, "")),
    "quic": (udp(ELSEWHERE, 443), (Reason.QUIC_REFUSED, None, None, "")),
    "a deny rule": (tcp(ELSEWHERE, 25), (Reason.RULE, "rules/no-mail", None, "")),
    "an old rule": (tcp("20.8.0.1", 22), (Reason.EXPIRED_RULE, "rules/old", None, "")),
    "an allowed name at another port": (
        udp(NTP, 124),
        (Reason.DEFAULT_DENY, None, "ntp.ubuntu.com", "needed-by: aks/ntp"),
    ),
    "a private answer": (
        tcp(PRIVATE, 5432),
        (Reason.FORBIDDEN_ADDRESS, "rules/db", "db.contoso.example", ""),
    ),
    "the wire server": (tcp("168.63.129.16", 80), (Reason.FORBIDDEN_ADDRESS, None, None, "")),
    "a stranger": (tcp(SQL, 1433, STRANGER), (Reason.DEFAULT_DENY, None, None, NO_CLIENT)),
    "the gateway": (tcp("10.240.0.1", 22), (Reason.LOOP, None, None, NOT_OPEN)),
    "the gateway by udp": (udp("10.240.0.1", 9), (Reason.LOOP, None, None, NOT_OPEN)),
    "tcp, v6": (tcp(PUBLIC6, 22, SPOKE6), (Reason.DEFAULT_DENY, None, None, "")),
    "udp, v6": (udp(PUBLIC6, 53, SPOKE6), (Reason.DEFAULT_DENY, None, None, "")),
    "ping, v6": (
        Packet(SPOKE6, PUBLIC6, ICMPV6, icmp_type=128),
        (Reason.DEFAULT_DENY, None, None, ""),
    ),
    "quic, v6": (udp(PUBLIC6, 443, SPOKE6), (Reason.QUIC_REFUSED, None, None, "")),
    "a deny rule, v6": (tcp(PUBLIC6, 25, SPOKE6), (Reason.RULE, "rules/no-mail", None, "")),
    "the gateway, v6": (tcp("fd00:240::1", 22, SPOKE6), (Reason.LOOP, None, None, NOT_OPEN)),
}


@pytest.mark.netns
def test_what_the_gateway_s_table_refuses_has_its_reason(tmp_path: Path) -> None:
    world = World(compile_policy(TABLE_RULES))
    world.book.learn(DnsName("ntp.ubuntu.com"), (NTP,), 60)
    world.book.learn(DnsName("db.contoso.example"), (PRIVATE,), 60)
    script = table_script(kernel_policy(TABLE_RULES, NOON), FirewallOptions())
    with spoke_and_hub(tmp_path) as made:
        made["hub"].run("nft", "-f", "-", stdin=script)
        with made["hub"].entered():
            nflog = Nflog(FirewallOptions().nflog_group)
        with closing(nflog):
            world.denies._nflog = nflog
            for packet, _ in THROWN.values():
                throw(made["spoke"], packet)
            throw(made["spoke"], udp("20.6.0.1", 9))
            deadline = time.monotonic() + 10
            while len(world.records) <= len(THROWN) and time.monotonic() < deadline:
                world.denies.turn()
    *_, audited = sorted(world.records, key=lambda record: record.would_deny)
    found = {(r.protocol, r.src_ip, r.dst_ip, r.dst_port): r for r in world.records}
    for case, (packet, expected) in THROWN.items():
        protocol = PROTOCOLS[packet.protocol]
        record = found[protocol, packet.src, packet.dst, packet.dst_port]
        assert (record.reason, record.rule, record.name, record.note) == expected, case
        assert (record.action, record.would_deny) == (DENY, False), case
    assert (audited.dst_ip, audited.rule) == ("20.6.0.1", "rules/trial-web")
    assert (audited.action, audited.would_deny) == (Action.ALLOW, True)
    assert world.counted(KernelCount.DISAGREEMENTS) == 0
    assert world.counted(KernelCount.PACKETS) == len(THROWN) + 1

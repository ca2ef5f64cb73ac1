"""What the sets of names are given: by a resolver and an nft of our own, then by real ones."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from egressproxy.errors import KernelError
from egressproxy.kernel.firewall_options import FirewallOptions
from egressproxy.kernel.kernel_policy import kernel_policy
from egressproxy.kernel.nflog import Nflog
from egressproxy.kernel.nft_apply import Nft, SetChange
from egressproxy.kernel.nft_names import name_sets
from egressproxy.kernel.nft_script import table_script
from egressproxy.names import DnsName
from egressproxy.observe.cells import KernelCount, NameCount
from egressproxy.observe.counters import Counters
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.verdict import Reason
from egressproxy.resolve.address_book import AddressBook
from egressproxy.resolve.cache import Answer, Failure
from egressproxy.resolve.guard import Guard
from egressproxy.resolve.resolver import Resolver
from egressproxy.service import name_sets as module
from egressproxy.service.journal import configure_journal
from egressproxy.service.kernel_denies import KernelDenies
from egressproxy.service.name_sets import NameSets, wanted_names
from egressproxy.service.set_plans import WantedName
from egressproxy.settings import Settings
from lab.namespaces import namespaces
from tests.kernel.one_nic import CLIENT, SERVER, one_nic, udp
from tests.policy.building import NOON, TODAY, YESTERDAY, networks, policy, rule
from tests.resolve.conftest import DnsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from egressproxy.observe.record import FlowRecord
    from lab.namespaces import Namespace

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_blocking")]

NTP, LINK = DnsName("ntp.ubuntu.com"), DnsName("link.contoso.example")
ONE, TWO, SIX = "185.125.190.56", "185.125.190.57", "2620:2d:4000:1::3f"
PRIVATE, OTHER_PRIVATE = "10.50.0.9", "10.60.0.9"
GRACE_S, TTL_S = 900, 60
SUBNET = networks("10.50.0.0/24")


def wanted(name: DnsName, *allowances: tuple[Any, ...]) -> WantedName:
    return WantedName(name, frozenset(allowances or ((),)))


class Kernel:
    """What stands in for nft: sets as they would be."""

    def __init__(self) -> None:
        self.sets: dict[str, dict[str, int]] = {}
        self.calls: list[list[SetChange]] = []
        self.missing: set[str] = set()
        self.code = "kernel"
        self.gate: threading.Event | None = None
        self.entered = threading.Event()

    def change_elements(self, changes: Iterable[SetChange]) -> None:
        changes = list(changes)
        self.calls.append(changes)
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(10)
        if any(change.name in self.missing for change in changes):
            raise KernelError("No such file or directory", code=self.code)
        for change in changes:
            held = self.sets.setdefault(change.name, {})
            if change.flush:
                held.clear()
            for address in change.remove:
                held.pop(address, None)
            held |= dict(change.add)

    def of(self, name: DnsName) -> dict[str, int]:
        return {a: s for each in name_sets(name) for a, s in self.sets.get(each, {}).items()}


class Answers:
    """What stands in for the resolver: one answer a name, given when it is asked."""

    def __init__(self) -> None:
        self.addresses: dict[DnsName, tuple[str, ...]] = {NTP: (ONE, SIX)}

    def resolve(self, name: DnsName, callback: Callable[[Answer], None], *, whole: bool) -> None:
        loop = asyncio.get_running_loop()
        addresses = self.addresses.get(name, ())
        error = Failure.NONE if addresses else Failure.NXDOMAIN
        answer = Answer(addresses, error, loop.time() + TTL_S)
        loop.call_soon(callback, answer)


class World:
    def __init__(self) -> None:
        self.now = 5000.0
        self.kernel = Kernel()
        self.answers = Answers()
        self.guard = Guard()
        self.book = AddressBook(grace_s=GRACE_S, entries=1000, clock=lambda: self.now)
        self.counters = Counters.create(1)
        self.sets = NameSets(
            resolver=self.answers,  # type: ignore[arg-type]  # as much of one as is used
            book=self.book,
            guard=lambda: self.guard,
            elements=self.kernel,
            sets_of=name_sets,
            counters=self.counters.supervisor(),
            clock=lambda: self.now,
        )

    async def settle(self, *names: WantedName) -> None:
        self.sets.want(names)
        assert await self.sets.settled(5)

    def counted(self, what: KernelCount) -> int:
        return self.counters.totals().kernel[what]


@pytest.fixture
def journal() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_journal(stream)
    yield stream
    structlog.reset_defaults()


@pytest.fixture
def world(journal: io.StringIO) -> World:
    return World()


async def test_both_families_with_ttl_and_grace(world: World) -> None:
    async with world.sets:
        await world.settle(wanted(NTP))
    v4, v6 = name_sets(NTP)
    assert world.kernel.sets == {v4: {ONE: TTL_S + GRACE_S}, v6: {SIX: TTL_S + GRACE_S}}
    assert len(world.kernel.calls) == 1, "one transaction"
    assert world.counters.totals().names[NameCount.BOOK_PAIRS] == 2
    assert world.counters.totals().names[NameCount.BOOK_NAMES] == 1


async def test_nothing_wanted_is_settled(world: World) -> None:
    async with world.sets:
        await world.settle()
    assert world.kernel.calls == []


async def test_a_name_that_does_not_resolve(world: World, journal: io.StringIO) -> None:
    async with world.sets:
        await world.settle(wanted(LINK), wanted(NTP))
        assert world.sets.unresolved == (LINK,)
    assert world.kernel.of(LINK) == {}
    assert world.kernel.of(NTP)
    assert json.loads(journal.getvalue())["name"] == LINK


GUARDED = {
    "public": ((ONE,), [()], {ONE}),
    "private": ((PRIVATE,), [()], set()),
    "private beside public": ((ONE, PRIVATE), [()], {ONE}),
    "listed": ((PRIVATE, OTHER_PRIVATE), [SUBNET], {PRIVATE}),
    "listed by one of two rules": ((PRIVATE, ONE), [SUBNET, ()], {ONE}),
    "listed by both": ((PRIVATE,), [SUBNET, networks("10.0.0.0/8")], {PRIVATE}),
    "metadata service": (("169.254.169.254",), [networks("10.0.0.0/8")], set()),
    "our own": (("20.1.1.1",), [()], set()),
    "loopback": (("127.0.0.1", "::1"), [()], set()),
    "private in ipv6 clothes": (("64:ff9b::a32:9",), [()], set()),
}


@pytest.mark.parametrize(("addresses", "allowances", "open_to"), GUARDED.values(), ids=GUARDED)
async def test_the_guard_says_what_enters(
    world: World,
    addresses: tuple[str, ...],
    allowances: list[tuple[Any, ...]],
    open_to: set[str],
    journal: io.StringIO,
) -> None:
    world.guard = Guard(["20.1.1.1"])
    world.answers.addresses[LINK] = addresses
    async with world.sets:
        await world.settle(wanted(LINK, *allowances))
        await world.sets.flush()
    assert set(world.kernel.of(LINK)) == open_to
    assert world.counted(KernelCount.REFUSED_ADDRESSES) == len(set(addresses) - open_to)
    assert len(journal.getvalue().splitlines()) == (set(addresses) != open_to), "said once"


async def test_an_element_is_renewed_before_it_runs_out_and_not_at_each_answer(
    world: World,
) -> None:
    async with world.sets:
        await world.settle(wanted(NTP))
        for _ in range(4):
            world.now += TTL_S
            world.book.learn(NTP, (ONE, SIX), TTL_S)
            await world.sets.flush()
        assert len(world.kernel.calls) == 1
        world.now += TTL_S * 2
        world.book.learn(NTP, (ONE,), TTL_S)
        await world.sets.flush()
    assert [[c.add for c in call] for call in world.kernel.calls[1:]] == [
        [((ONE, TTL_S + GRACE_S),)],
    ]


async def test_what_another_learnt_is_in_the_kernel_after_a_flush(world: World) -> None:
    """The seam of a DNS proxy: learn, flush, answer the client."""
    async with world.sets:
        await world.settle(wanted(NTP))
        world.book.learn(NTP, (TWO,), 5)
        world.book.learn(LINK, (TWO,), 5)
        await world.sets.flush()
        assert world.kernel.of(NTP)[TWO] == 5 + GRACE_S
    assert world.kernel.of(LINK) == {}, "nobody wants that"


async def test_what_a_flow_uses_stays_open(world: World) -> None:
    async with world.sets:
        await world.settle(wanted(NTP))
        world.now += TTL_S + GRACE_S - 10
        world.book.keep([ONE])
        await world.sets.flush()
    assert world.kernel.of(NTP)[ONE] == GRACE_S


async def test_an_address_that_is_given_no_more_has_its_whole_grace(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOUSEKEEPING_S", 0.01)
    async with world.sets:
        await world.settle(wanted(NTP))
        world.now += 200
        world.book.learn(NTP, (ONE,), TTL_S)
        await world.sets.flush()
        assert len(world.kernel.calls) == 1, "enough for now"
        world.now += 500  # and no other answer
        async with asyncio.timeout(5):
            while len(world.kernel.calls) == 1:  # noqa: ASYNC110 - as below
                await asyncio.sleep(0.005)
    assert [change.add for change in world.kernel.calls[1]] == [((ONE, TTL_S + GRACE_S - 500),)]


async def test_a_set_that_is_not_there_takes_no_other_with_it(
    world: World, journal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOUSEKEEPING_S", 0.01)
    world.answers.addresses[LINK] = (TWO,)
    world.kernel.missing.add(name_sets(LINK)[0])
    async with world.sets:
        await world.settle(wanted(LINK), wanted(NTP))
        assert set(world.kernel.of(NTP)) == {ONE, SIX}
        assert world.kernel.of(LINK) == {}
        assert world.counted(KernelCount.SET_ERRORS) >= 1
        world.kernel.missing.clear()
        world.now += 10
        async with asyncio.timeout(5):
            while not world.kernel.of(LINK):  # noqa: ASYNC110 - what stands in for nft has no event
                await asyncio.sleep(0.005)
    (line,) = map(json.loads, journal.getvalue().splitlines())
    assert line["name"] == LINK


async def test_a_missing_nft_is_not_asked_for_each_set(world: World) -> None:
    names = [DnsName(f"n{number}.example") for number in range(20)]
    world.answers.addresses |= dict.fromkeys(names, (ONE,))
    world.kernel.missing = {name_sets(name)[0] for name in names}
    world.kernel.code = "missing_program"
    async with world.sets:
        world.sets.want([wanted(name) for name in names])
        assert await world.sets.settled(5)
    assert all(len(call) > 1 for call in world.kernel.calls)
    assert len(world.kernel.calls) <= 20


def many(world: World) -> list[DnsName]:
    """Names of an address each."""
    names = [DnsName(f"n{number}.example") for number in range(500)]
    for number, name in enumerate(names):
        world.answers.addresses[name] = (f"20.1.{number // 250}.{number % 250}",)
    return names


async def test_a_table_that_is_gone_is_not_asked_for_each_set(
    world: World, journal: io.StringIO
) -> None:
    """Each is a process, and a line in the journal; and nothing else is filled meanwhile."""
    names = many(world)
    async with world.sets:
        world.sets.want([wanted(name) for name in names])
        assert await world.sets.settled(5)
        world.kernel.missing = {name_sets(name)[0] for name in names}
        world.kernel.calls.clear()
        world.sets.refill()
        await world.sets.flush()
        assert len(world.kernel.calls) <= module.MAX_TRIES
        assert world.counted(KernelCount.SET_ERRORS) == len(names)
        lines = [json.loads(line) for line in journal.getvalue().splitlines()]
        assert len(lines) < 10
        assert lines[-1]["sets"] == len(names) - len(lines[:-1])


@pytest.mark.parametrize("bad", [0, 77, 499])
async def test_one_bad_set_of_many_is_found(bad: int, world: World) -> None:
    names = many(world)
    world.kernel.missing = {name_sets(names[bad])[0]}
    async with world.sets:
        world.sets.want([wanted(name) for name in names])
        assert await world.sets.settled(5)
        assert [name for name in names if not world.kernel.of(name)] == [names[bad]]
        assert world.counted(KernelCount.SET_ERRORS) >= 1


async def test_a_table_made_anew_is_filled_again(world: World) -> None:
    async with world.sets:
        await world.settle(wanted(NTP))
        before = world.kernel.sets
        world.kernel.sets = {}
        world.sets.refill()
        assert await world.sets.settled(5)
        assert world.kernel.sets == before


async def test_a_table_made_anew_while_the_old_one_was_being_filled(world: World) -> None:
    world.kernel.gate = threading.Event()
    async with world.sets:
        world.sets.want([wanted(NTP)])
        assert await asyncio.to_thread(world.kernel.entered.wait, 5)
        world.sets.refill()
        world.kernel.gate.set()
        assert await world.sets.settled(5)
    assert len(world.kernel.calls) == 2


async def test_who_waits_for_a_flush_may_give_up(world: World) -> None:
    async with world.sets:
        await world.settle(wanted(NTP))
        world.kernel.gate = threading.Event()
        world.book.learn(NTP, (TWO,), TTL_S)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await world.sets.flush()
        assert TWO not in world.kernel.of(NTP)
        world.kernel.gate.set()
        await world.sets.flush()
        assert TWO in world.kernel.of(NTP)


async def test_a_rule_that_lists_less_closes_at_once(world: World) -> None:
    world.answers.addresses[LINK] = (PRIVATE, ONE)
    async with world.sets:
        await world.settle(wanted(LINK, SUBNET))
        assert set(world.kernel.of(LINK)) == {PRIVATE, ONE}
        world.sets.want([wanted(LINK)])
        await world.sets.flush()
        assert set(world.kernel.of(LINK)) == {ONE}


async def test_what_cannot_be_closed_is_raised_and_the_old_allowance_is_good_again(
    world: World,
) -> None:
    world.answers.addresses[LINK] = (PRIVATE, ONE)
    async with world.sets:
        await world.settle(wanted(LINK, SUBNET))
        world.kernel.missing.add(name_sets(LINK)[0])
        with pytest.raises(KernelError, match="cannot be closed: No such file"):
            await world.sets.tighten([wanted(LINK, SUBNET, ())])
        world.kernel.missing.clear()
        world.sets.want([wanted(LINK, SUBNET)])
        await world.sets.flush()
        assert set(world.kernel.of(LINK)) == {PRIVATE, ONE}
        await world.sets.tighten([wanted(LINK, SUBNET, ())])
        assert set(world.kernel.of(LINK)) == {ONE}


async def test_a_set_that_cannot_be_filled_is_not_one_that_cannot_be_closed(world: World) -> None:
    """A name more, or an address more, that fails is tried again and holds nothing up."""
    world.answers.addresses[LINK] = (ONE,)
    async with world.sets:
        await world.settle(wanted(LINK, SUBNET))
        world.kernel.missing |= {*name_sets(LINK), *name_sets(NTP)}
        world.book.learn(LINK, (TWO,), TTL_S)
        await world.sets.tighten([wanted(LINK, SUBNET, ()), wanted(NTP)])
        assert world.counted(KernelCount.SET_ERRORS) >= 1
        assert set(world.kernel.of(LINK)) == {ONE}


async def test_an_address_that_becomes_our_own_is_taken_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOUSEKEEPING_S", 0.01)
    async with world.sets:
        await world.settle(wanted(NTP))
        world.guard = Guard([ONE])
        world.now += 10
        async with asyncio.timeout(5):
            while ONE in world.kernel.of(NTP):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.005)
    assert set(world.kernel.of(NTP)) == {SIX}


async def test_a_name_that_comes_back_into_the_policy_is_filled_from_the_book(
    world: World,
) -> None:
    async with world.sets:
        await world.settle(wanted(NTP))
        world.sets.want([])
        world.kernel.sets.clear()  # the table without it
        world.answers.addresses.clear()
        world.sets.want([wanted(NTP)])
        await world.sets.flush()
        assert set(world.kernel.of(NTP)) == {ONE, SIX}


async def test_an_error_beside_it_stays_what_it_is(world: World) -> None:
    with pytest.raises(KeyError):
        async with world.sets:
            raise KeyError


async def test_late_is_said(world: World) -> None:
    world.kernel.gate = threading.Event()
    async with world.sets:
        world.sets.want([wanted(NTP)])
        assert not await world.sets.settled(0.05)
        world.kernel.gate.set()


def test_wanted_names_of_a_policy() -> None:
    made = policy(
        rule("a", "ntp.ubuntu.com", ports="udp:123"),
        rule("b", "ntp.ubuntu.com", ports="tcp:4460 https", addresses=SUBNET),
        rule("c", "www.contoso.example", "*.contoso.example", ports="https"),
        rule("d", "old.contoso.example", ports="tcp:22", until=YESTERDAY),
        rule("e", "last.contoso.example", ports="tcp:22", until=TODAY),
        rule("f", "20.1.2.3", ports="tcp:22"),
    )
    assert wanted_names(kernel_policy(made, NOON)) == (
        WantedName(NTP, frozenset({(), SUBNET})),
        WantedName(DnsName("last.contoso.example"), frozenset({()})),
    )


# A real DNS server, a real kernel


class Inside:
    """nft in a namespace; it is called in a thread."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.nft = Nft()

    def change_elements(self, changes: Iterable[SetChange]) -> None:
        with self.namespace.entered():
            self.nft.change_elements(changes)

    def elements(self, name: DnsName) -> dict[str, int]:
        found: dict[str, int] = {}
        for each in name_sets(name):
            listed = self.namespace.run("nft", "-j", "list", "set", "inet", "egressproxy", each)
            for entry in json.loads(listed)["nftables"][1]["set"].get("elem", ()):
                found[entry["elem"]["val"]] = entry["elem"]["timeout"]
        return found


@pytest.mark.netns
async def test_names_of_a_policy_open_the_kernel_s_table(
    tmp_path: Path, journal: io.StringIO
) -> None:
    made = policy(
        rule("ntp", "ntp.ubuntu.com", ports="udp:123"),
        rule("link", "link.contoso.example", ports="tcp:5432"),
    )
    kernel = kernel_policy(made, NOON)
    with namespaces(["names"], tmp_path) as built:
        inside = Inside(built["names"])
        script = table_script(kernel, FirewallOptions())
        await asyncio.to_thread(built["names"].run, "nft", "-f", "-", stdin=script)
        async with DnsServer() as server:
            server.add("ntp.ubuntu.com", "A", ONE, TWO, ttl=TTL_S)
            server.add("ntp.ubuntu.com", "AAAA", SIX, ttl=TTL_S)
            server.add("link.contoso.example", "A", PRIVATE, ttl=TTL_S)
            settings = Settings(address_grace_s=GRACE_S)
            resolver = Resolver(settings, servers=[server.address])
            book = AddressBook(grace_s=GRACE_S, entries=1000)
            counters = Counters.create(1)
            sets = NameSets(
                resolver=resolver,
                book=book,
                guard=Guard,
                elements=inside,
                sets_of=name_sets,
                counters=counters.supervisor(),
            )
            async with sets:
                left = [SetChange(name_sets(NTP)[0], add=(("20.1.2.3", 600),))]
                await asyncio.to_thread(inside.change_elements, left)  # by a service before
                sets.want(wanted_names(kernel))
                assert await sets.settled(10)
                assert await asyncio.to_thread(inside.elements, NTP) == dict.fromkeys(
                    (ONE, TWO, SIX), TTL_S + GRACE_S
                )
                assert await asyncio.to_thread(inside.elements, LINK) == {}
                book.learn(NTP, (ONE,), 1000)
                await sets.flush()
                assert (await asyncio.to_thread(inside.elements, NTP))[ONE] == 1000 + GRACE_S
            await resolver.aclose()
    assert book.names_of(PRIVATE) == (LINK,), "the deny log knows its name"
    assert "kept out" in journal.getvalue()
    assert counters.totals().kernel[KernelCount.SET_ERRORS] == 0


def nflog_of(namespace: Namespace) -> Nflog:
    with namespace.entered():
        return Nflog(FirewallOptions().nflog_group)


@pytest.mark.netns
async def test_a_client_reaches_the_name_once_it_is_resolved_and_is_refused_before(
    tmp_path: Path, journal: io.StringIO
) -> None:
    """Real datagrams: refused and recorded, then there and back, and IPv6 shut by the guard."""
    made = policy(rule("ntp", "ntp.ubuntu.com", ports="udp:123"))
    kernel = kernel_policy(made, NOON)
    ruleset = await asyncio.to_thread(compile_policy, made)
    records: list[FlowRecord] = []
    counters = Counters.create(1)
    book = AddressBook(grace_s=GRACE_S, entries=1000)
    async with AsyncExitStack() as stack:
        net = stack.enter_context(one_nic(tmp_path))
        net.sysctl("net/ipv4/ip_forward", "1")
        net.sysctl("net/ipv6/conf/all/forwarding", "1")
        script = table_script(kernel, FirewallOptions())
        await asyncio.to_thread(net.hub.run, "nft", "-f", "-", stdin=script)
        nflog = await asyncio.to_thread(nflog_of, net.hub)
        server = stack.enter_context(udp(net.server, SERVER[4], 123))
        client = stack.enter_context(udp(net.client, CLIENT[4]))
        client6 = stack.enter_context(udp(net.client, CLIENT[6]))
        denies = KernelDenies(
            nflog,
            ruleset=lambda: ruleset,
            guard=Guard,
            book=book,
            sink=SimpleNamespace(write=records.append),
            counters=counters.supervisor(),
            clients=FirewallOptions().clients,
        )
        dns = await stack.enter_async_context(DnsServer())
        dns.add("ntp.ubuntu.com", "A", SERVER[4], ttl=TTL_S)
        dns.add("ntp.ubuntu.com", "AAAA", SERVER[6], ttl=TTL_S)
        resolver = Resolver(Settings(), servers=[dns.address])
        sets = NameSets(
            resolver=resolver,
            book=book,
            guard=Guard,
            elements=Inside(net.hub),
            sets_of=name_sets,
            counters=counters.supervisor(),
        )

        async def recorded(count: int) -> None:
            async with asyncio.timeout(5):
                while len(records) < count:  # noqa: ASYNC110 - the sink is a list
                    await asyncio.sleep(0.005)

        async with denies, sets:
            client.sendto(b"early", (SERVER[4], 123))
            await recorded(1)
            sets.want(wanted_names(kernel))
            assert await sets.settled(10)
            client.sendto(b"time?", (SERVER[4], 123))
            question, sender = await asyncio.to_thread(server.recvfrom, 100)
            assert question == b"time?", "what was refused before did not come"
            server.sendto(b"noon", sender)
            assert await asyncio.to_thread(client.recv, 100) == b"noon"
            client6.sendto(b"time?", (SERVER[6], 123))
            await recorded(2)
        await resolver.aclose()
    assert [(r.dst_ip, r.reason, r.rule, r.name) for r in records] == [
        (SERVER[4], Reason.DEFAULT_DENY, None, None),
        (SERVER[6], Reason.FORBIDDEN_ADDRESS, "ntp", NTP),
    ]
    assert counters.totals().kernel[KernelCount.DISAGREEMENTS] == 0

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dns.rcode
import pytest

from egressproxy.errors import ServiceError
from egressproxy.names import DnsName
from egressproxy.resolve.cache import Answer, Failure
from egressproxy.resolve.resolver import Lookup, Resolver, has_global_ipv6
from egressproxy.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from tests.resolve.conftest import DnsServer

    Run = Callable[[Coroutine[Any, Any, None]], None]

NAME = DnsName("a.test")
V4, V6 = "198.51.100.7", "2001:db8::7"


class Counted:
    def __init__(self) -> None:
        self.lookups: Counter[str] = Counter()

    def resolver(self, outcome: str) -> None:
        self.lookups[outcome] += 1


class Rig:
    """A server, a resolver for it, and what it counted."""

    def __init__(self, server: DnsServer, **options: Any) -> None:
        self.server = server
        self.settings = Settings(**options.pop("settings", {}))
        self.options = {"prefers_ipv6": lambda: True, **options}
        self.counted = Counted()
        self.resolver: Resolver

    async def __aenter__(self) -> Rig:
        await self.server.__aenter__()
        self.resolver = Resolver(
            self.settings,
            servers=[self.server.address],
            counters=self.counted,
            **self.options,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.resolver.aclose()
        await self.server.__aexit__()

    async def ask(self, name: str = NAME, *, whole: bool = False) -> Answer:
        """One answer, by the callback, which must not come before ``resolve`` is back."""
        came: asyncio.Queue[Answer] = asyncio.Queue()
        self.resolver.resolve(DnsName(name), came.put_nowait, whole=whole)
        assert came.empty()
        async with asyncio.timeout(10):
            answer = await came.get()
        await asyncio.sleep(0)
        assert came.empty()
        return answer


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not claim():  # noqa: ASYNC110 - what is waited for happens in other threads too
            await asyncio.sleep(0.001)


def test_both_families_are_asked_and_mixed(run: Run, dns_server: DnsServer) -> None:
    async def scenario() -> None:
        dns_server.add("a.test", "A", V4, "198.51.100.8", "198.51.100.9", ttl=120)
        dns_server.add("a.test", "AAAA", V6, ttl=60)
        async with Rig(dns_server) as rig:
            answer = await rig.ask()
            now = asyncio.get_running_loop().time()
            assert answer.addresses[0] == V6
            assert set(answer.addresses[1:]) == {V4, "198.51.100.8", "198.51.100.9"}
            assert answer.error == ""
            assert 55 < answer.expires_at - now <= 60
            assert rig.resolver.cached(NAME) is answer
            assert await rig.ask() is answer
            assert dns_server.asked("a.test", "A") == dns_server.asked("a.test", "AAAA") == 1
            assert rig.counted.lookups == {Lookup.MISS: 1, Lookup.HIT: 1}

    run(scenario())


def test_ipv4_comes_first_where_the_host_has_no_ipv6(dns_server: DnsServer) -> None:
    async def scenario() -> None:
        dns_server.add("a.test", "A", V4)
        dns_server.add("a.test", "AAAA", V6)
        async with Rig(dns_server, prefers_ipv6=lambda: False) as rig:
            assert (await rig.ask()).addresses == (V4, V6)

    asyncio.run(scenario())


FAILURES = {
    "nxdomain": (dns.rcode.NXDOMAIN, Failure.NXDOMAIN),
    "servfail": (dns.rcode.SERVFAIL, Failure.SERVFAIL),
    "refused": (dns.rcode.REFUSED, Failure.SERVFAIL),
    "formerr": (dns.rcode.FORMERR, Failure.SERVFAIL),
    "no data": (dns.rcode.NOERROR, Failure.NO_ADDRESS),
}


@pytest.mark.parametrize(("rcode", "error"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_an_answer_and_is_remembered(
    run: Run, dns_server: DnsServer, rcode: dns.rcode.Rcode, error: Failure
) -> None:
    async def scenario() -> None:
        dns_server.both("a.test", rcode=rcode)
        async with Rig(dns_server) as rig:
            answer = await rig.ask()
            assert answer.addresses == ()
            assert answer.error is error
            assert rig.resolver.cached(NAME) is answer
            assert rig.counted.lookups == {Lookup.MISS: 1, Lookup.ERROR: 1, Lookup.NEGATIVE: 1}

    run(scenario())


TIMES_S = {
    # (ttl, settings) -> seconds an answer lives
    "as the server says": ("A", 60, {}, 60.0),
    "at least the minimum": ("A", 0, {"dns_min_ttl_s": 7.0}, 7.0),
    "at most the maximum": ("A", 86400, {"dns_max_ttl_s": 90.0}, 90.0),
    "no more than 31 bits": ("A", 2**31 - 1, {}, 300.0),
    "nxdomain": (dns.rcode.NXDOMAIN, 0, {"dns_negative_ttl_s": 11.0}, 11.0),
    "servfail is soon asked again": (dns.rcode.SERVFAIL, 0, {"dns_negative_ttl_s": 11.0}, 1.0),
}


@pytest.mark.parametrize(("kind", "ttl", "limits", "lives_s"), TIMES_S.values(), ids=TIMES_S)
def test_how_long_an_answer_lives(
    dns_server: DnsServer, kind: Any, ttl: int, limits: dict[str, float], lives_s: float
) -> None:
    async def scenario() -> None:
        if kind == "A":
            dns_server.add("a.test", "A", V4, ttl=ttl)
        else:
            dns_server.both("a.test", rcode=kind)
        async with Rig(dns_server, settings=limits) as rig:
            answer = await rig.ask()
            left_s = answer.expires_at - asyncio.get_running_loop().time()
            assert lives_s - 0.9 < left_s <= lives_s

    asyncio.run(scenario())


def test_an_expired_answer_is_asked_for_again_and_never_served(dns_server: DnsServer) -> None:
    async def scenario() -> None:
        script = dns_server.add("a.test", "A", V4, ttl=0)
        limits = {"dns_min_ttl_s": 0.0}
        async with Rig(dns_server, settings=limits) as rig:
            await rig.ask()
            assert rig.resolver.cached(NAME) is None
            script.records.clear()
            dns_server.add("a.test", "A", "198.51.100.99", ttl=0)
            assert (await rig.ask()).addresses == ("198.51.100.99",)

    asyncio.run(scenario())


def test_the_library_keeps_no_answer_behind_our_back(run: Run, dns_server: DnsServer) -> None:
    """c-ares' own cache would hold a day's TTL against our ``dns_max_ttl_s``."""

    async def scenario() -> None:
        dns_server.add("a.test", "A", V4, ttl=86400)
        async with Rig(dns_server, settings={"dns_max_ttl_s": 1.0, "dns_min_ttl_s": 0.0}) as rig:
            await rig.ask()
            async with asyncio.timeout(10):
                while dns_server.asked("a.test", "A") < 2:
                    await rig.ask()
                    await asyncio.sleep(0.05)

    run(scenario())


def test_emptying_the_library_s_cache_disturbs_no_question(run: Run, dns_server: DnsServer) -> None:
    async def scenario() -> None:
        gate = asyncio.Event()
        dns_server.add("a.test", "A", V4).gate = gate
        dns_server.script("a.test", "AAAA").gate = gate
        async with Rig(dns_server) as rig:
            came: list[Answer] = []
            rig.resolver.resolve(NAME, came.append)
            await until(lambda: len(dns_server.seen) == 2)
            stub = rig.resolver._stub
            assert stub is not None
            for number in range(20):
                stub._flush()
                await rig.ask(f"n{number}.test")
            assert came == []
            gate.set()
            await until(lambda: bool(came))
            assert came[0].addresses == (V4,)

    run(scenario())


def test_one_question_for_all_who_wait(run: Run, dns_server: DnsServer) -> None:
    async def scenario() -> None:
        gate = asyncio.Event()
        dns_server.add("a.test", "A", V4).gate = gate
        dns_server.script("a.test", "AAAA").gate = gate
        async with Rig(dns_server) as rig:
            came: list[Answer] = []
            for _ in range(100):
                rig.resolver.resolve(NAME, came.append)
            await until(lambda: len(dns_server.seen) == 2)
            gate.set()
            await until(lambda: len(came) == 100)
            assert {answer.addresses for answer in came} == {(V4,)}
            assert rig.counted.lookups[Lookup.MISS] == 1
            assert len(dns_server.seen) == 2

    run(scenario())


def test_a_callback_that_raises_takes_nobody_with_it(dns_server: DnsServer) -> None:
    async def scenario() -> None:
        faults: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
        dns_server.add("a.test", "A", V4)
        async with Rig(dns_server) as rig:
            came: list[Answer] = []
            rig.resolver.resolve(NAME, lambda _: [][0])
            rig.resolver.resolve(NAME, came.append)
            await until(lambda: bool(came))
            assert [type(fault) for fault in faults] == [IndexError]

    asyncio.run(scenario())


def test_the_slower_family_is_waited_for_a_moment_only(run: Run, dns_server: DnsServer) -> None:
    async def scenario() -> None:
        gate = asyncio.Event()
        dns_server.add("a.test", "A", V4)
        dns_server.add("a.test", "AAAA", V6).gate = gate
        async with Rig(dns_server) as rig:
            assert (await rig.ask()).addresses == (V4,)
            assert rig.resolver.cached(NAME) is None, "half an answer is not kept"
            assert (await rig.ask()).addresses == (V4,), "who comes later gets it at once"
            whole: list[Answer] = []
            rig.resolver.resolve(NAME, whole.append, whole=True)
            await asyncio.sleep(0.1)
            assert whole == []
            gate.set()
            await until(lambda: bool(whole))
            assert whole[0].addresses == (V6, V4)
            assert rig.resolver.cached(NAME) is whole[0]

    run(scenario())


def test_a_server_that_never_answers_is_a_timeout(run: Run, dns_server: DnsServer) -> None:
    async def scenario() -> None:
        for rtype in ("A", "AAAA"):
            dns_server.script("a.test", rtype).is_silent = True
        async with Rig(dns_server, settings={"resolve_timeout_s": 0.2}) as rig:
            before = asyncio.get_running_loop().time()
            answer = await rig.ask()
            assert answer.error is Failure.TIMEOUT
            assert asyncio.get_running_loop().time() - before < 1
            await until(lambda: rig.resolver._open == 0)

    run(scenario())


def test_a_family_that_never_answers_costs_nothing_but_itself(dns_server: DnsServer) -> None:
    async def scenario() -> None:
        dns_server.add("a.test", "A", V4)
        dns_server.script("a.test", "AAAA").is_silent = True
        async with Rig(dns_server, settings={"resolve_timeout_s": 0.3}) as rig:
            answer = await rig.ask(whole=True)
            assert answer.addresses == (V4,)
            assert rig.resolver.cached(NAME) is answer

    asyncio.run(scenario())


def test_the_next_server_is_asked(run: Run, dns_server: DnsServer) -> None:
    async def scenario() -> None:
        dns_server.add("a.test", "A", V4)
        async with Rig(dns_server) as rig:
            # Nobody listens on the first: bound here, closed again.
            dead = await asyncio.get_running_loop().create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
            )
            port = dead[0].get_extra_info("sockname")[1]
            dead[0].close()
            await asyncio.sleep(0)
            other = Resolver(Settings(), servers=[f"127.0.0.1:{port}", dns_server.address])
            came: list[Answer] = []
            other.resolve(NAME, came.append)
            await until(lambda: bool(came))
            assert came[0].addresses == (V4,)
            await other.aclose()
            assert rig.counted.lookups == {}

    run(scenario())


def test_truncated_answers_come_over_tcp(run: Run, dns_server: DnsServer) -> None:
    async def scenario() -> None:
        dns_server.add("a.test", "A", V4).is_truncated = True
        async with Rig(dns_server) as rig:
            assert (await rig.ask()).addresses == (V4,)
            assert ("a.test", "A", "tcp") in dns_server.seen

    run(scenario())


def test_a_chain_of_aliases_is_followed(dns_server: DnsServer) -> None:
    async def scenario() -> None:
        for at, target, ttl in (("a.test", "b.test.", 30), ("b.test", "c.cdn.test.", 9)):
            dns_server.add("a.test", "A", target, at=at, ttl=ttl)
        dns_server.add("a.test", "A", V4, at="c.cdn.test", ttl=60)
        async with Rig(dns_server) as rig:
            answer = await rig.ask()
            assert answer.addresses == (V4,)
            assert answer.expires_at - asyncio.get_running_loop().time() <= 9

    asyncio.run(scenario())


def test_ten_thousand_addresses_are_cut(run: Run, dns_server: DnsServer) -> None:
    async def scenario() -> None:
        many = [f"198.{18 + n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(4000)]
        dns_server.add("a.test", "A", *many).is_truncated = True
        async with Rig(dns_server) as rig:
            addresses = (await rig.ask()).addresses
            assert len(addresses) == len(set(addresses)) == 32
            assert set(addresses) <= set(many)

    run(scenario())


GARBAGE = {
    "empty": b"",
    "header cut": b"\x81\x80\x00",
    "answers promised and missing": b"\x81\x80\x00\x01\xff\xff\x00\x00\x00\x00",
    "noise": bytes(range(256)),
    "a name that points at itself": b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
    b"\x01a\x04test\x00\x00\x01\x00\x01\xc0\x18\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\1\1\1\1",
}


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_a_failure(dns_server: DnsServer, raw: bytes) -> None:
    async def scenario() -> None:
        for rtype in ("A", "AAAA"):
            dns_server.script("a.test", rtype).raw = raw
        async with Rig(dns_server, settings={"resolve_timeout_s": 0.3}) as rig:
            assert (await rig.ask()).error in (Failure.TIMEOUT, Failure.SERVFAIL)

    asyncio.run(scenario())


def test_addresses_are_canonical_text(dns_server: DnsServer) -> None:
    async def scenario() -> None:
        dns_server.add("a.test", "AAAA", "::ffff:198.51.100.7", "2001:DB8:0:0:0:0:0:7")
        async with Rig(dns_server) as rig:
            assert set((await rig.ask()).addresses) == {V4, V6}

    asyncio.run(scenario())


def test_names_in_flight_are_bounded(dns_server: DnsServer) -> None:
    async def scenario() -> None:
        gate = asyncio.Event()
        names = [f"n{number}.test" for number in range(3)]
        for name in names:
            for rtype in ("A", "AAAA"):
                dns_server.script(name, rtype).gate = gate
        async with Rig(dns_server, settings={"dns_in_flight": 2}) as rig:
            came: list[Answer] = []
            for name in names[:2]:
                rig.resolver.resolve(DnsName(name), came.append)
            assert (await rig.ask(names[2])).error is Failure.BUSY
            assert rig.resolver.cached(DnsName(names[2])) is None
            gate.set()
            await until(lambda: len(came) == 2)
            assert (await rig.ask(names[2])).error is Failure.NO_ADDRESS

    asyncio.run(scenario())


def test_waiting_flows_are_bounded(dns_server: DnsServer) -> None:
    async def scenario() -> None:
        gate = asyncio.Event()
        for rtype in ("A", "AAAA"):
            dns_server.script("a.test", rtype).gate = gate
        async with Rig(dns_server, settings={"max_flows": 2}) as rig:
            came: list[Answer] = []
            rig.resolver.resolve(NAME, came.append)
            rig.resolver.resolve(NAME, came.append)
            assert (await rig.ask()).error is Failure.BUSY
            gate.set()
            await until(lambda: len(came) == 2)
            assert rig.resolver._waiting == 0

    asyncio.run(scenario())


def test_overrides_are_never_asked_for(dns_server: DnsServer) -> None:
    async def scenario() -> None:
        async with Rig(dns_server, overrides={NAME: ("127.0.0.1", "::1")}) as rig:
            cached = rig.resolver.cached(NAME)
            assert cached is not None
            assert cached.addresses == ("127.0.0.1", "::1")
            assert await rig.ask() is cached
            assert dns_server.seen == []

    asyncio.run(scenario())


def test_close_answers_all_who_wait_and_leaves_nothing_behind(
    run: Run, dns_server: DnsServer
) -> None:
    async def scenario() -> None:
        for rtype in ("A", "AAAA"):
            dns_server.script("a.test", rtype).is_silent = True
        async with Rig(dns_server) as rig:
            came: list[Answer] = []
            rig.resolver.resolve(NAME, came.append)
            rig.resolver.resolve(NAME, came.append, whole=True)
            await until(lambda: len(dns_server.seen) >= 2)
            await rig.resolver.aclose()
            assert [answer.error for answer in came] == [Failure.CLOSED] * 2
            assert rig.resolver._waiting == rig.resolver._open == 0
            assert (await rig.ask("b.test")).error is Failure.CLOSED
            await rig.resolver.aclose()
            assert asyncio.all_tasks() <= {asyncio.current_task(), *server_tasks(dns_server)}

    def server_tasks(server: DnsServer) -> set[asyncio.Task[Any]]:
        return set(server._tasks._tasks)

    before = descriptors()
    run(scenario())
    deadline = time.monotonic() + 5  # pycares closes its sockets in a thread of its own
    while descriptors() > before:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_close_without_a_question(run: Run) -> None:
    async def scenario() -> None:
        await Resolver(Settings(), servers=["127.0.0.1"]).aclose()

    run(scenario())


def test_many_resolvers_leak_no_descriptor_or_thread(dns_server: DnsServer) -> None:
    async def scenario() -> None:
        dns_server.add("a.test", "A", V4)
        async with dns_server:
            async for _ in resolvers(5):
                pass
            await until(lambda: entries("/proc/self/task") <= threads + 1)
            before = descriptors()
            async for _ in resolvers(20):
                pass
            await until(lambda: descriptors() <= before)

    async def resolvers(count: int) -> AsyncIterator[None]:
        for _ in range(count):
            resolver = Resolver(Settings(), servers=[dns_server.address])
            came: list[Answer] = []
            resolver.resolve(NAME, came.append)
            await until(lambda came=came: bool(came))  # type: ignore[misc]
            await resolver.aclose()
            yield

    threads = entries("/proc/self/task")  # pycares adds one for closing, once
    asyncio.run(scenario())


def descriptors() -> int:
    return entries("/proc/self/fd")


def entries(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


def test_a_wrong_server_is_refused_at_once() -> None:
    with pytest.raises(ServiceError, match="is not a DNS server"):
        Resolver(Settings(), servers=["dns.example"])


SOURCES = {
    "global": ("2600::1", True),
    "unique local": ("fd00::1", False),
    "link-local": ("fe80::1", False),
    "no route": (None, False),
}


@pytest.mark.parametrize(("source", "expected"), SOURCES.values(), ids=SOURCES)
def test_ipv6_is_preferred_only_from_a_global_source(
    monkeypatch: pytest.MonkeyPatch, source: str | None, expected: bool
) -> None:
    class Probe:
        def __init__(self, *args: object) -> None: ...

        def __enter__(self) -> Probe:
            return self

        def __exit__(self, *exc: object) -> None: ...

        def connect(self, _: object) -> None:
            if source is None:
                raise OSError("no route")

        def getsockname(self) -> tuple[str, int]:
            return (source or "", 1)

    monkeypatch.setattr(socket, "socket", Probe)
    assert has_global_ipv6() is expected

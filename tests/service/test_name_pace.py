"""When names are asked for, on a loop whose clock jumps to whatever is next."""

from __future__ import annotations

import asyncio
import io
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from egressproxy.names import DnsName
from egressproxy.resolve.address_book import AddressBook
from egressproxy.resolve.cache import Answer, Failure
from egressproxy.service import name_pace
from egressproxy.service.journal import configure_journal
from egressproxy.service.name_pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NTP, TIME = DnsName("ntp.ubuntu.com"), DnsName("time.windows.com")
ONE, TWO = "185.125.190.56", "20.101.57.9"


class JumpingLoop(asyncio.SelectorEventLoop):
    """Nothing to do takes no time."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        inner: Any = self
        if not inner._ready and inner._scheduled:
            self.now = max(self.now, inner._scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]  # asyncio's own


class Resolver:
    """Answers after ``delay_s`` with what is scripted last, or ``ttl_s`` and ``ONE``."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, DnsName]] = []
        self.failing: dict[DnsName, Failure] = {}
        self.ttl_s = 60.0
        self.delay_s = 0.0
        self.at_once = self.most_at_once = 0

    def resolve(self, name: DnsName, callback: Callable[[Answer], None], *, whole: bool) -> None:
        assert whole, "a family that is late is a family that is missing"
        loop = asyncio.get_running_loop()
        self.asked.append((loop.time() - 1000.0, name))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        loop.call_later(self.delay_s, self._answer, name, callback)

    def _answer(self, name: DnsName, callback: Callable[[Answer], None]) -> None:
        self.at_once -= 1
        error = self.failing.get(name, Failure.NONE)
        now = asyncio.get_running_loop().time()
        callback(Answer(error=error) if error else Answer((ONE,), expires_at=now + self.ttl_s))

    def times(self, name: DnsName = NTP) -> list[float]:
        return [moment for moment, asked in self.asked if asked == name]


class World:
    def __init__(self) -> None:
        self.resolver = Resolver()
        self.book = AddressBook(grace_s=900, entries=1000, clock=lambda: self.loop.time())
        self.unresolved: list[int] = []
        self.answered: list[DnsName] = []
        self.loop: asyncio.AbstractEventLoop
        self.jitter = 0.0
        self.pace: Pace

    def unresolved_names(self, names: int) -> None:
        self.unresolved.append(names)

    def run(self, *steps: tuple[float, Callable[[], None]], until_s: float) -> None:
        """Let it run; each step is done at its second."""

        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            self.pace = Pace(
                self.resolver,  # type: ignore[arg-type]  # as much of one as is used
                self.book,
                self,
                self.answered.append,
                jitter=lambda: self.jitter,
            )
            for moment, step in steps:
                self.loop.call_at(1000.0 + moment, step)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self.pace.run())
                await asyncio.sleep(until_s)
                task.cancel()

        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(main())

    def want(self, *names: DnsName) -> Callable[[], None]:
        return lambda: self.pace.want(names)


@pytest.fixture
def journal() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_journal(stream)
    yield stream
    structlog.reset_defaults()


@pytest.fixture
def world(journal: io.StringIO) -> World:
    return World()


TTLS = {
    "a minute": (60.0, [0, 60, 120]),
    "nothing": (0.0, [0, 1, 2]),
    "a day": (86400.0, [0, 300]),
    "fixed": (math.inf, [0, 300]),
}


@pytest.mark.parametrize(("ttl_s", "expected"), TTLS.values(), ids=TTLS)
def test_asked_again_when_the_answer_ends(
    world: World, ttl_s: float, expected: list[float]
) -> None:
    world.resolver.ttl_s = ttl_s
    world.run((0, world.want(NTP)), until_s=expected[-1] + 0.5)
    assert world.resolver.times() == expected
    assert world.answered == [NTP] * len(expected)


def test_not_all_together(world: World) -> None:
    world.jitter = 1.0
    world.run((0, world.want(NTP)), until_s=70)
    assert world.resolver.times() == [0, pytest.approx(66)]


def test_the_book_learns(world: World) -> None:
    seen: list[tuple[str, ...]] = []
    world.run(
        (0, world.want(NTP)),
        (1, lambda: world.resolver.failing.update({NTP: Failure.SERVFAIL})),
        (60 + 899, lambda: seen.append(world.book.addresses_of(NTP))),
        (60 + 901, lambda: seen.append(world.book.addresses_of(NTP))),
        until_s=1000,
    )
    assert seen == [(ONE,), ()], "the grace, and no more"


def test_a_failing_name_is_asked_less_often_and_said_once(
    world: World, journal: io.StringIO
) -> None:
    world.resolver.failing[NTP] = Failure.NXDOMAIN
    world.run(
        (0, world.want(NTP, TIME)),
        (140, world.resolver.failing.clear),
        until_s=250,
    )
    assert world.resolver.times() == [0, 5, 15, 35, 75, 135, 195]
    lines = [json.loads(line) for line in journal.getvalue().splitlines()]
    assert [(line["level"], line["name"], line.get("why")) for line in lines] == [
        ("warning", NTP, "nxdomain"),
        ("info", NTP, None),
    ]
    assert max(world.unresolved) == 1
    assert world.unresolved[-1] == 0
    assert world.pace.unresolved == ()


@pytest.mark.parametrize(
    ("was_known", "hint"),
    [
        (True, "its last addresses stay open for address_grace_s"),
        (False, f"nothing is open for it until it does; from here: dig {NTP}"),
    ],
    ids=["known before", "new"],
)
def test_what_a_failing_name_still_opens_is_said(
    world: World, journal: io.StringIO, was_known: bool, hint: str
) -> None:
    def learn() -> None:
        if was_known:
            world.book.learn(NTP, (ONE,), 60)

    world.resolver.failing[NTP] = Failure.NXDOMAIN
    world.run((0, learn), (1, world.want(NTP)), until_s=3)
    (line,) = map(json.loads, journal.getvalue().splitlines())
    assert line["hint"] == hint


def test_a_failing_name_is_named(world: World) -> None:
    world.resolver.failing[NTP] = Failure.TIMEOUT
    world.run((0, world.want(NTP, TIME)), until_s=3)
    assert world.pace.unresolved == (NTP,)


def test_a_few_at_once(world: World) -> None:
    world.resolver.delay_s = 0.1
    names = [DnsName(f"n{number}.example") for number in range(100)]
    world.run((0, world.want(*names)), until_s=1)
    assert sorted({name for _, name in world.resolver.asked}) == sorted(names)
    assert world.resolver.most_at_once == name_pace.AT_ONCE


def test_what_is_no_longer_wanted_is_forgotten(world: World) -> None:
    world.resolver.failing[NTP] = Failure.NXDOMAIN
    world.resolver.delay_s = 1.0
    world.run((0, world.want(NTP)), (5, world.want(TIME)), until_s=200)
    assert world.resolver.times() == [0]
    assert world.pace.unresolved == ()
    assert world.unresolved[-1] == 0


def test_an_answer_for_what_is_no_longer_wanted_goes_nowhere(world: World) -> None:
    world.resolver.delay_s = 10
    world.run((0, world.want(NTP)), (5, world.want()), until_s=20)
    assert world.answered == []
    assert world.book.addresses_of(NTP) == ()


def test_wanted_again_while_it_is_asked_for(world: World) -> None:
    world.resolver.delay_s = 10
    world.run((0, world.want(NTP)), (2, world.want()), (4, world.want(NTP)), until_s=60)
    assert world.resolver.times() == [0]
    assert world.answered == [NTP]


def test_what_stays_wanted_keeps_its_pace(world: World) -> None:
    world.run((0, world.want(NTP)), (30, world.want(NTP, TIME)), until_s=95)
    assert world.resolver.times(NTP) == [0, 60]
    assert world.resolver.times(TIME) == [30, 90]


def test_settled_when_each_has_its_first_answer(world: World) -> None:
    seen: list[bool] = []
    world.resolver.failing[TIME] = Failure.TIMEOUT
    world.resolver.delay_s = 2.0
    look = [(moment, lambda: seen.append(world.pace.is_settled)) for moment in (1, 3)]
    world.run((0, world.want(NTP, TIME)), *look, until_s=4)
    assert seen == [False, True]


def test_a_closed_resolver_is_no_failure(world: World, journal: io.StringIO) -> None:
    world.resolver.failing[NTP] = Failure.CLOSED
    world.run((0, world.want(NTP)), until_s=100)
    assert world.resolver.times() == [0]
    assert journal.getvalue() == ""

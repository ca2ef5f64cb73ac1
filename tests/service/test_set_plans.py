"""Plans without a loop, a resolver or a kernel; ``test_name_sets`` has them at work."""

from __future__ import annotations

import io
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import KernelError
from egressproxy.kernel.nft_apply import SetChange
from egressproxy.kernel.nft_names import name_sets
from egressproxy.names import DnsName
from egressproxy.resolve.address_book import AddressBook
from egressproxy.resolve.guard import Guard
from egressproxy.service.journal import configure_journal
from egressproxy.service.set_plans import Plan, SetPlans, WantedName

if TYPE_CHECKING:
    from collections.abc import Iterator

NTP = DnsName("ntp.ubuntu.com")
WANTED = WantedName(NTP)
V4, V6 = name_sets(NTP)
ONE, TWO, SIX, PRIVATE = "185.125.190.56", "185.125.190.57", "2620:2d:4000:1::3f", "10.50.0.9"
GRACE_S, TTL_S = 900.0, 60.0
GUARD = Guard()


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.book = AddressBook(grace_s=GRACE_S, entries=1000, clock=lambda: self.now)
        self.plans = SetPlans(self.book, name_sets, self, lambda: self.now)
        self.refused = self.errors = 0

    def refused_addresses(self, addresses: int) -> None:
        self.refused += addresses

    def set_error(self) -> None:
        self.errors += 1

    def carry_out(self, *, fails: bool = False) -> list[SetChange]:
        plans = self.plans.of([WANTED], GUARD)
        error = KernelError("no such set")
        failed = {plan.set_name: error for plan in plans} if fails else {}
        self.plans.done(plans, self.plans.table, failed)
        return [plan.change(self.now) for plan in plans]


@pytest.fixture
def world() -> Iterator[World]:
    configure_journal(io.StringIO())
    yield World()
    structlog.reset_defaults()


def test_once_and_then_when_a_third_of_the_grace_is_missing(world: World) -> None:
    world.book.learn(NTP, (ONE,), TTL_S)
    assert world.carry_out() == [SetChange(V4, ((ONE, 960),), flush=True)]
    assert world.carry_out() == []
    world.now += 299
    world.book.learn(NTP, (ONE,), TTL_S)
    assert world.carry_out() == []
    world.now += 2
    world.book.learn(NTP, (ONE,), TTL_S)
    assert world.carry_out() == [SetChange(V4, ((ONE, 960),))]


def test_what_a_service_before_left_goes_with_the_first_answer_of_the_family(
    world: World,
) -> None:
    assert world.carry_out() == [], "until then it is all there is"
    world.book.learn(NTP, (PRIVATE,), TTL_S)
    assert world.carry_out() == [SetChange(V4, flush=True)]
    world.book.learn(NTP, (SIX,), TTL_S)
    assert world.carry_out() == [SetChange(V6, ((SIX, 960),), flush=True)]
    world.book.learn(NTP, (ONE, PRIVATE), TTL_S)
    assert world.carry_out() == [SetChange(V4, ((ONE, 960),))]


def test_seconds_are_of_the_moment_of_the_change() -> None:
    plan = Plan(NTP, V4, {ONE: 1000.5}, (TWO,))
    assert plan.change(900.0) == SetChange(V4, ((ONE, 101),), (TWO,))


def test_what_failed_is_not_believed_to_be_there(world: World) -> None:
    world.book.learn(NTP, (ONE,), TTL_S)
    for _ in range(3):
        assert len(world.carry_out(fails=True)) == 1
        assert world.plans.has_failures
    assert world.errors == 3
    assert len(world.carry_out()) == 1
    assert not world.plans.has_failures
    assert world.carry_out() == []


def test_what_failed_is_open_if_it_is_refused_or_nobody_knows_what_is_there(world: World) -> None:
    listed = WantedName(NTP, frozenset({(ip_network("10.50.0.0/24"),)}))
    world.book.learn(NTP, (ONE,), TTL_S)
    assert world.plans.left_open([WANTED], GUARD) is None
    world.carry_out(fails=True)
    assert str(world.plans.left_open([WANTED], GUARD)) == "no such set", "what a service left"
    world.carry_out()
    assert world.plans.left_open([WANTED], GUARD) is None
    world.book.learn(NTP, (TWO,), TTL_S)
    world.carry_out(fails=True)
    assert world.plans.left_open([WANTED], GUARD) is None, "it could not be opened"
    own = Guard([ONE])
    assert str(world.plans.left_open([WANTED], own)) == "no such set"
    assert str(world.plans.left_open([listed], own)) == "no such set"
    assert world.plans.left_open([], own) is None


def test_a_new_table_has_nothing_of_the_old(world: World) -> None:
    world.book.learn(NTP, (ONE,), TTL_S)
    plans, table = world.plans.of([WANTED], GUARD), world.plans.table
    world.plans.forget_table()
    world.plans.done(plans, table, {})
    assert len(world.carry_out()) == 1, "what was carried out was for the old one"


def test_a_name_that_goes_takes_its_sets_and_failures_with_it(world: World) -> None:
    world.book.learn(NTP, (ONE,), TTL_S)
    world.carry_out(fails=True)
    world.plans.keep_only({NTP})
    assert world.plans.has_failures
    world.plans.keep_only(set())
    assert not world.plans.has_failures


def test_what_may_no_longer_be_there_is_taken_out(world: World) -> None:
    world.book.learn(NTP, (ONE, TWO), TTL_S)
    world.carry_out()
    (plan,) = world.plans.of([WANTED], Guard([ONE]))
    assert (plan.add, plan.remove) == ({}, (ONE,))
    assert world.refused == 1
    world.plans.of([WANTED], Guard([ONE]))
    assert world.refused == 1


def test_also_what_the_book_has_forgotten_is_taken_out(world: World) -> None:
    world.book = AddressBook(grace_s=GRACE_S, entries=1, clock=lambda: world.now)
    world.plans = SetPlans(world.book, name_sets, world, lambda: world.now)
    world.book.learn(NTP, (ONE,), TTL_S)
    world.carry_out()
    world.book.learn(DnsName("other.example"), (TWO,), TTL_S)
    assert world.book.addresses_of(NTP) == ()
    (plan,) = world.plans.of([WANTED], Guard([ONE]))
    assert plan.remove == (ONE,)


STEPS = st.lists(
    st.tuples(st.sampled_from(["learn", "pass", "keep"]), st.integers(0, 3), st.integers(1, 290)),
    max_size=60,
)


@given(STEPS)
def test_what_the_book_has_is_in_the_kernel(steps: list[tuple[str, int, int]]) -> None:
    """Law: as long as somebody looks more often than every third of the grace."""
    world = World()
    kernel: dict[str, float] = {}
    for what, number, seconds in steps:
        address = f"20.1.2.{number}"
        if what == "learn":
            world.book.learn(NTP, (address,), seconds)
        elif what == "keep":
            world.book.keep([address])
        else:
            world.now += seconds
        for change in world.carry_out():
            kernel |= {each: world.now + left for each, left in change.add}
        for entry in world.book.entries_of(NTP):
            assert kernel[entry.address] > world.now
            assert kernel[entry.address] >= entry.expires_at - GRACE_S / 3
            assert kernel[entry.address] < entry.expires_at + 1


def test_the_last_of_a_name_that_resolves_no_more_has_its_whole_grace(world: World) -> None:
    world.book.learn(NTP, (ONE,), TTL_S)
    world.carry_out()
    world.now += 250
    world.book.learn(NTP, (ONE,), TTL_S)
    assert world.carry_out() == [], "for now it has enough"
    world.now += 420
    assert world.carry_out() == [SetChange(V4, ((ONE, 540),))]
    assert world.carry_out() == []

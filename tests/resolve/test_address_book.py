from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.names import DnsName
from egressproxy.resolve import address_book
from egressproxy.resolve.address_book import AddressBook, Entry

NTP, TIME = DnsName("ntp.ubuntu.com"), DnsName("time.windows.com")
ONE, TWO, SIX = "185.125.190.56", "185.125.190.57", "2620:2d:4000:1::3f"
GRACE_S = 900.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(clock: Clock) -> AddressBook:
    return AddressBook(grace_s=GRACE_S, entries=1000, clock=clock)


def test_both_ways_the_last_given_first(book: AddressBook) -> None:
    book.learn(NTP, (ONE, TWO), 60)
    book.learn(TIME, (ONE,), 60)
    assert book.addresses_of(NTP) == (TWO, ONE)
    assert book.names_of(ONE) == (TIME, NTP)
    book.learn(NTP, (ONE,), 60)
    assert book.names_of(ONE) == (NTP, TIME)
    assert book.addresses_of(NTP) == (ONE, TWO)
    assert (book.names, len(book)) == (2, 3)
    assert book.names_of("192.0.2.1") == ()
    assert book.addresses_of(DnsName("other.example")) == ()


def test_ttl_and_grace(book: AddressBook, clock: Clock) -> None:
    book.learn(NTP, (ONE,), 60)
    clock.now += 60 + GRACE_S - 1
    assert book.names_of(ONE) == (NTP,)
    assert book.entries_of(NTP) == (Entry(NTP, ONE, clock.now + 1),)
    clock.now += 1
    assert book.names_of(ONE) == ()
    assert book.addresses_of(NTP) == ()
    assert len(book) == 1, "until it is told to forget"
    assert book.expire() == 1
    assert (book.names, len(book)) == (0, 0)


def test_a_shorter_ttl_takes_nothing_back(book: AddressBook, clock: Clock) -> None:
    book.learn(NTP, (ONE,), 300)
    book.learn(NTP, (ONE,), 5)
    clock.now += 299 + GRACE_S
    assert book.addresses_of(NTP) == (ONE,)


def test_an_address_that_is_no_longer_given_stays_for_the_grace(
    book: AddressBook, clock: Clock
) -> None:
    book.learn(NTP, (ONE,), 60)
    clock.now += 60
    book.learn(NTP, (TWO,), 60)
    assert set(book.addresses_of(NTP)) == {ONE, TWO}
    clock.now += GRACE_S
    assert book.addresses_of(NTP) == (TWO,)


def test_what_a_flow_uses_is_kept(book: AddressBook, clock: Clock) -> None:
    book.learn(NTP, (ONE, TWO), 60)
    for _ in range(10):
        clock.now += GRACE_S / 2
        book.keep([ONE, "192.0.2.77"])
    assert book.addresses_of(NTP) == (ONE,)
    clock.now += GRACE_S
    assert book.addresses_of(NTP) == ()


def test_what_is_over_is_not_kept(book: AddressBook, clock: Clock) -> None:
    book.learn(NTP, (ONE,), 0)
    clock.now += GRACE_S
    book.keep([ONE])
    assert book.names_of(ONE) == ()


def test_changes_since_the_last_look(book: AddressBook, clock: Clock) -> None:
    assert book.changes() == ()
    book.learn(NTP, (ONE, SIX), 60)
    end = clock.now + 60 + GRACE_S
    assert book.changes() == (Entry(NTP, ONE, end), Entry(NTP, SIX, end))
    assert book.changes() == ()
    clock.now += 100
    book.keep([SIX])
    assert book.changes() == (Entry(NTP, SIX, clock.now + GRACE_S),)
    book.keep([SIX])
    assert book.changes() == (), "nothing is longer than it was"


def test_changes_that_are_over_are_none(book: AddressBook, clock: Clock) -> None:
    book.learn(NTP, (ONE,), 0)
    clock.now += GRACE_S
    assert book.changes() == ()


def test_it_is_bounded_in_all(clock: Clock) -> None:
    book = AddressBook(grace_s=GRACE_S, entries=100, clock=clock)
    book.learn(NTP, (ONE,), 60)
    for number in range(99):
        book.learn(DnsName(f"n{number}.example"), (f"192.0.2.{number}",), 60)
    book.learn(NTP, (ONE,), 60)
    for number in range(500):
        book.learn(DnsName(f"m{number}.example"), (f"198.51.100.{number % 250}",), 60)
        if number == 98:
            assert book.names_of(ONE) == (NTP,), "what was learnt again is not the oldest"
    assert len(book) == 100
    assert len(book.changes()) == 100


def test_it_is_bounded_for_a_name_and_for_an_address(clock: Clock) -> None:
    book = AddressBook(grace_s=GRACE_S, entries=100_000, clock=clock)
    for number in range(2000):
        book.learn(NTP, (f"10.0.{number // 250}.{number % 250}",), 60)
        book.learn(DnsName(f"n{number}.example"), (ONE,), 60)
    assert len(book.addresses_of(NTP)) == address_book.MAX_ADDRESSES_OF_NAME
    assert len(book.names_of(ONE)) == address_book.MAX_NAMES_OF_ADDRESS
    assert book.addresses_of(NTP)[0] == "10.0.7.249"
    assert book.names_of(ONE)[0] == DnsName("n1999.example")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("learn"), st.integers(0, 3), st.integers(0, 5), st.integers(0, 300)),
        st.tuples(st.just("keep"), st.integers(0, 5), st.just(0), st.just(0)),
        st.tuples(st.just("pass"), st.integers(1, 500), st.just(0), st.just(0)),
        st.tuples(st.just("expire"), st.just(0), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS)
def test_it_is_what_a_plain_table_would_be(steps: list[tuple[str, int, int, int]]) -> None:
    clock = Clock()
    book = AddressBook(grace_s=GRACE_S, entries=1000, clock=clock)
    plain: dict[tuple[DnsName, str], float] = {}
    names = [DnsName(f"n{number}.example") for number in range(4)]
    for what, a, b, ttl_s in steps:
        if what == "learn":
            book.learn(names[a], (f"192.0.2.{b}",), ttl_s)
            pair = (names[a], f"192.0.2.{b}")
            plain[pair] = max(plain.get(pair, 0.0), clock.now + ttl_s + GRACE_S)
        elif what == "keep":
            book.keep([f"192.0.2.{a}"])
            for pair, end in plain.items():
                if pair[1] == f"192.0.2.{a}" and end > clock.now:
                    plain[pair] = max(end, clock.now + GRACE_S)
        elif what == "pass":
            clock.now += a
        else:
            book.expire()
        plain = {pair: end for pair, end in plain.items() if end > clock.now}
        for name in names:
            entries = book.entries_of(name)
            assert {(name, e.address): e.expires_at for e in entries} == {
                pair: end for pair, end in plain.items() if pair[0] == name
            }
        for number in range(6):
            address = f"192.0.2.{number}"
            assert set(book.names_of(address)) == {n for n, a in plain if a == address}

"""Addresses that the kernel still has or uses stay names' addresses."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import pytest
import structlog

from egressproxy.errors import KernelError
from egressproxy.kernel.nft_names import name_sets
from egressproxy.names import DnsName
from egressproxy.resolve.address_book import AddressBook
from egressproxy.service import addresses_in_use as module
from egressproxy.service.addresses_in_use import AddressesInUse, learn_from_sets
from egressproxy.service.journal import configure_journal
from egressproxy.service.set_plans import WantedName
from tests.service.test_forwarded import entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.kernel.conntrack import Entry

NTP: Final = DnsName("ntp.example")
OTHER: Final = DnsName("other.example")
USED: Final = "30.9.0.1"
UNUSED: Final = "30.9.0.2"
GRACE_S: Final = 900.0


class Kernel:
    """What it forwards, or why it does not say; ``asked`` counts."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.entries: list[Entry] = [entry(17, USED, 123)]
        self.failure = ""
        self.asked = 0

    def clock(self) -> float:
        return self.now

    def forwarded(self) -> list[Entry]:
        self.asked += 1
        if self.failure:
            raise KernelError(self.failure)
        return self.entries


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(module, "forwarded", made.forwarded)
    return made


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_journal(stream)
    yield stream
    structlog.reset_defaults()


@pytest.fixture
def book(kernel: Kernel) -> AddressBook:
    return AddressBook(grace_s=GRACE_S, entries=100, clock=kernel.clock)


def test_what_sets_have_is_taken_over(book: AddressBook, kernel: Kernel) -> None:
    v4, v6 = name_sets(NTP)
    elements = {
        v4: [(USED, 1200), (UNUSED, 5)],
        v6: [("2001:db9::1", 950)],
        name_sets(OTHER)[0]: [("30.9.9.9", 1200)],
    }
    learn_from_sets(book, [WantedName(NTP)], elements)
    assert set(book.addresses_of(NTP)) == {USED, UNUSED, "2001:db9::1"}
    assert book.addresses_of(OTHER) == ()
    kernel.now += 6
    assert set(book.addresses_of(NTP)) == {USED, "2001:db9::1"}
    kernel.now += 895
    assert set(book.addresses_of(NTP)) == {USED, "2001:db9::1"}
    kernel.now += 300
    assert book.addresses_of(NTP) == ()


def test_restarts_do_not_keep_an_address_open(kernel: Kernel) -> None:
    """A service that ends every ten minutes, long after the name has another address."""
    left: list[tuple[str, int]] = [(USED, 1200)]
    for _ in range(3):
        book = AddressBook(grace_s=GRACE_S, entries=100, clock=kernel.clock)
        learn_from_sets(book, [WantedName(NTP)], {name_sets(NTP)[0]: left})
        kernel.now += 600
        left = [(e.address, int(e.expires_at - kernel.now)) for e in book.entries_of(NTP)]
    assert left == []


@pytest.mark.anyio
async def test_an_address_in_use_outlives_its_answer(book: AddressBook, kernel: Kernel) -> None:
    in_use = AddressesInUse(book, kernel.clock)
    book.learn(NTP, [USED, UNUSED], 0)
    for _ in range(10):
        kernel.now += GRACE_S / 3 + 1
        await in_use.keep()
    assert book.addresses_of(NTP) == (USED,)
    kernel.entries = []
    for _ in range(4):
        kernel.now += GRACE_S / 3 + 1
        await in_use.keep()
    assert book.addresses_of(NTP) == ()


@pytest.mark.anyio
async def test_connections_are_listed_seldom_and_not_without_names(
    book: AddressBook, kernel: Kernel
) -> None:
    in_use = AddressesInUse(book, kernel.clock)
    await in_use.keep()
    assert kernel.asked == 0
    book.learn(NTP, [USED], 60)
    for _ in range(10):
        await in_use.keep()
        kernel.now += 5
    assert kernel.asked == 1


@pytest.mark.anyio
async def test_what_cannot_be_listed_is_told_and_no_more(
    book: AddressBook, kernel: Kernel, said: io.StringIO
) -> None:
    kernel.failure = "no netlink"
    book.learn(NTP, [USED], 60)
    await AddressesInUse(book, kernel.clock).keep()
    assert "no netlink" in said.getvalue()
    assert book.addresses_of(NTP) == (USED,)

"""What the kernel can tell the address book: addresses that sets still have, or connections use.

So a restart does not end the connections that a network rule opened by name, nor does an answer
that no longer has the address they go to.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from egressproxy.errors import KernelError
from egressproxy.kernel.nft_names import name_sets
from egressproxy.service.forwarded import forwarded
from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from egressproxy.resolve.address_book import AddressBook
    from egressproxy.service.set_plans import WantedName

_LOOK: Final = 1 / 3
"""Part of the grace after which connections are looked at again."""


def learn_from_sets(
    book: AddressBook,
    wanted: Iterable[WantedName],
    elements: Mapping[str, Iterable[tuple[str, int]]],
) -> None:
    """Take over what a service before us was answered, for as long as it was good there.

    No longer: a service that is started again and again must not keep open for ever what a name was
    once answered. What connections use, ``AddressesInUse`` prolongs.

    Args:
        book: learns it.
        wanted: the names of the policy; others are none of ours any more.
        elements: addresses by set, each with the seconds that it has left.
    """
    for each in wanted:
        for set_name in name_sets(each.name):
            for address, left_s in elements.get(set_name, ()):
                book.resume(each.name, address, left_s)


class AddressesInUse:
    """Keeps in the book what forwarded connections use.

    Args:
        book: of the kernel's names.
        clock: monotonic seconds.
    """

    def __init__(self, book: AddressBook, clock: Callable[[], float] = time.monotonic) -> None:
        self._book = book
        self._clock = clock
        self._look_at = clock()

    async def keep(self) -> None:
        """Look, where it is time to; without names there is nothing to look for."""
        now = self._clock()
        if now < self._look_at or not len(self._book):
            return
        self._look_at = now + self._book.grace_s * _LOOK
        try:
            entries = await asyncio.to_thread(forwarded)
        except KernelError as error:
            journal().warning("forwarded connections cannot be listed", why=str(error))
            return
        self._book.keep({entry.dst for entry in entries})

"""After ``egressproxy nft apply``: what a reload of the service closes besides the rules."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from egressproxy.kernel.addresses import own_addresses
from egressproxy.kernel.nft_apply import SetChange
from egressproxy.kernel.nft_names import name_sets
from egressproxy.policy.compile import compile_policy
from egressproxy.resolve.address_book import AddressBook
from egressproxy.resolve.guard import Guard
from egressproxy.service.addresses_in_use import learn_from_sets
from egressproxy.service.forwarded import Judge, Revocation, revoke
from egressproxy.service.name_sets import wanted_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from egressproxy.kernel.kernel_policy import KernelPolicy
    from egressproxy.kernel.nft_apply import Nft
    from egressproxy.policy.networks import Network
    from egressproxy.policy.rules import Policy
    from egressproxy.service.set_plans import WantedName


@dataclass(frozen=True, slots=True)
class Closed:
    """How many addresses were taken out of names' sets, and what became of connections."""

    addresses: int
    forwarded: Revocation


def close_denied(
    policy: Policy, kernel: KernelPolicy, clients: Collection[Network], nft: Nft
) -> Closed:
    """Close what the policy in the table denies, though sets or marks would let it pass.

    What names were answered is what their sets still have: a connection that a rule allows by name
    is ended if its address is there no more. No records are written. Not for an event loop.

    Args:
        policy: the policy.
        kernel: the same, as the table was made of it.
        clients: who is served.
        nft: how to reach the table, which is in place.

    Raises:
        KernelError: the kernel does not list or change it.
        ServiceError: the machine's own addresses are not to be had.
    """
    guard, wanted = Guard(own_addresses()), wanted_names(kernel)
    elements = nft.timed_elements()
    changes = tuple(_refused(wanted, elements, guard))
    nft.change_elements(changes)
    book = AddressBook(grace_s=0.0, entries=1 + sum(map(len, elements.values())))
    learn_from_sets(book, wanted, elements)
    judge = Judge(
        ruleset=compile_policy(policy),
        is_audit=kernel.is_audit,
        book=book,
        guard=guard,
        clients=clients,
        now=time.time(),
    )
    done = asyncio.run(revoke(judge, lambda _: None))
    return Closed(sum(len(change.remove) for change in changes), done)


def _refused(
    wanted: Iterable[WantedName],
    elements: Mapping[str, Iterable[tuple[str, int]]],
    guard: Guard,
) -> Iterator[SetChange]:
    for each in wanted:
        for name in name_sets(each.name):
            found = (address for address, _ in elements.get(name, ()))
            if refused := tuple(address for address in found if each.refuses(guard, address)):
                yield SetChange(name, remove=refused)

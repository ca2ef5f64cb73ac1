"""``python -m bench.decide_cost``: a decision's cost at 60 names and at a million, in one process.

Sizes are measured in turn, round after round, so that ratios are of pairs and drift cancels. Three
kinds of name: seen before (a thousand of them in turn), new and allowed, new and denied. New names
have an address each and are spread over the whole policy, so that a large one pays for the memory
that it does not find in the processor's caches.

Prints JSON: kind to size to microseconds a decision, one a round; each includes the loop that asks,
some 0.02 us.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from enum import StrEnum
from ipaddress import IPv4Address
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.policies import below, write_policy_of
from egressproxy.names import DnsName
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.policy.verdict import Flow
from egressproxy.ports import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from egressproxy.policy.ruleset import Ruleset

SIZES: Final = (60, 10_000, 100_000, 1_000_000)
ROUNDS: Final = 21
_SEEN: Final = 1_000
_SEEN_TURNS: Final = 20
_NEW: Final = 4_000
_STRIDE: Final = 7_919
"""A prime: names one after the other are far apart in the policy."""
_ADDRESSES: Final = int(IPv4Address("20.64.0.0"))
_NOW: Final = 1_790_000_000.0


class Kind(StrEnum):
    """Which names are asked."""

    SEEN = "seen before"
    NEW_ALLOWED = "new, allowed"
    NEW_DENIED = "new, denied"


Costs = dict[str, dict[str, list[float]]]
"""Kind to size to microseconds a decision, one a round."""


def ruleset_of(size: int, folder: Path) -> Ruleset:
    """A compiled policy of ``size`` names."""
    return compile_policy(load_policy(write_policy_of(size, folder)))


def flow(name: str, number: int = 0) -> Flow:
    """A TLS connection of a client to a name, at the address of a number."""
    address = str(IPv4Address(_ADDRESSES + number))
    return Flow(Protocol.TLS, "10.240.0.4", 443, DnsName(name), address)


def new_flows(kind: Kind, size: int, numbers: Iterator[int], many: int) -> list[Flow]:
    """Flows to names that nobody asked for, spread over the policy."""
    if kind is Kind.NEW_DENIED:
        return [flow(f"a{n}.b.other{n % 1009}.example.org", n) for n in islice(numbers, many)]
    half = size // 2
    return [flow(below(n * _STRIDE % half, f"a{n}"), n) for n in islice(numbers, many)]


def measure(sizes: Sequence[int], rounds: int) -> Costs:
    """Compile a policy of every size and ask each in every round, in alternating order."""
    costs: Costs = {kind: {str(size): [] for size in sizes} for kind in Kind}
    rulesets = {}
    with tempfile.TemporaryDirectory(prefix="decide-") as folder:
        for size in sizes:
            rulesets[size] = ruleset_of(size, Path(folder))
    gc.collect()
    numbers = count()
    seen = {size: new_flows(Kind.NEW_ALLOWED, size, numbers, _SEEN) for size in sizes}
    for turn in range(rounds):
        for size in sizes if turn % 2 == 0 else reversed(sizes):
            ruleset = rulesets[size]
            _ask(ruleset, seen[size], Kind.SEEN)  # fetches them again after the new ones
            costs[Kind.SEEN][str(size)].append(_ask(ruleset, seen[size] * _SEEN_TURNS, Kind.SEEN))
            for kind in (Kind.NEW_ALLOWED, Kind.NEW_DENIED):
                flows = new_flows(kind, size, numbers, _NEW)
                costs[kind][str(size)].append(_ask(ruleset, flows, kind))
    return costs


def _ask(ruleset: Ruleset, flows: list[Flow], kind: Kind) -> float:
    """Microseconds a decision."""
    decide, now = ruleset.decide, _NOW
    started = time.perf_counter()
    for each in flows:
        decide(each, now)
    seconds = time.perf_counter() - started
    assert decide(flows[-1], now).is_allow is (kind is not Kind.NEW_DENIED)
    return seconds / len(flows) * 1e6


if __name__ == "__main__":
    gc.disable()  # as the service does
    json.dump(measure(SIZES, ROUNDS), sys.stdout)

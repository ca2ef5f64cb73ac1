"""What is measured of every data plane, in which unit, and which goals egressproxy has in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measure import Bench, Result


HAPROXY: Final = "HAProxy"
HAPROXY_SPLICE: Final = "HAProxy splice"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much load one measurement is, and how often it is repeated.

    ``repeats`` are of the kernel's forwarding, HAProxy and egressproxy; ``repeats_of_others`` of
    all others but the slow ones. Memory is measured with processes of its own, therefore less
    often.
    """

    connections: int = 8000
    bulk_octets: int = 500_000_000
    idle_tunnels: int = 2000
    many_tunnels: int = 20_000
    repeats: int = 15
    repeats_of_others: int = 7
    memory_repeats: int = 6
    memory_repeats_of_others: int = 2


QUICK: Final = Scale(
    connections=1000,
    bulk_octets=80_000_000,
    many_tunnels=0,
    repeats=3,
    repeats_of_others=2,
    memory_repeats=2,
    memory_repeats_of_others=1,
)


@dataclass(frozen=True, slots=True)
class Measure:
    """A line of the table; ``part`` in ``take`` is how much of the load a slow data plane has.

    Ratios are to ``reference``: the HAProxy whose configuration is the best for this.
    Goals are of egressproxy: ``goal`` of that ratio, ``most`` of the value itself, and
    less than the value of the data plane ``below``.
    ``denies`` means nothing to a data plane that lets everything pass.
    """

    title: str
    unit: str
    take: Callable[[Bench, Scale, float], Result]
    goal: float | None = None
    most: float | None = None
    below: str | None = None
    reference: str = HAPROXY
    denies: bool = False


def _connections(hello: str, times: int = 1) -> Callable[[Bench, Scale, float], Result]:
    return lambda bench, scale, part: bench.connections(
        int(scale.connections * part * times), hello=hello
    )


def _one_at_a_time(bench: Bench, scale: Scale, part: float) -> Result:
    return bench.connections(int(scale.connections * part / 3), concurrency=1)


def _bulk(connections: int, size: float) -> Callable[[Bench, Scale, float], Result]:
    return lambda bench, scale, part: bench.bulk(
        connections, int(scale.bulk_octets * part * size / connections)
    )


def _in_bulk(title: str, take: Callable[[Bench, Scale, float], Result]) -> Measure:
    return Measure(title, "hub us/MB", take, goal=0.60, below="Squid", reference=HAPROXY_SPLICE)


NEW_CONNECTION: Final = "new TLS connection"
ONE_AT_A_TIME: Final = "one at a time"
"""The measure whose latencies are those of an idle hub."""

TRAFFIC: Final = (
    Measure(NEW_CONNECTION, "hub us", _connections("allowed"), goal=1.10),
    Measure("the same, post-quantum", "hub us", _connections("post-quantum"), goal=1.10),
    Measure("denied connection", "hub us", _connections("denied", 3), goal=1.2, denies=True),
    _in_bulk("bulk, 1 connection", _bulk(1, 1)),
    _in_bulk("bulk, 8 connections", _bulk(8, 1.5)),
    Measure(ONE_AT_A_TIME, "hub us", _one_at_a_time),
)


@dataclass(frozen=True, slots=True)
class Memory:
    """Private memory of a tunnel in which nothing happens; ``count`` says how many there are."""

    title: str
    count: Callable[[Scale], int]
    unit: str = "octets"
    goal: float | None = None
    most: float | None = 1024
    below: str | None = None
    reference: str = HAPROXY


MEMORY: Final = (
    Memory("idle tunnel of 2,000", lambda scale: scale.idle_tunnels),
    Memory("idle tunnel of 20,000", lambda scale: scale.many_tunnels),
)
MEASURES: Final[tuple[Measure | Memory, ...]] = (*TRAFFIC, *MEMORY)

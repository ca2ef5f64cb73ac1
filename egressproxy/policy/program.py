"""``Program``: what a ruleset runs on. Made by ``policy.compile``, carried by ``policy.ship``."""

from __future__ import annotations

from calendar import timegm
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from egressproxy.policy.known import Known
    from egressproxy.policy.matcher import Depths, Matcher
    from egressproxy.policy.rules import Destination, Ech, Mode, OnReload, Refusal, Rule
    from egressproxy.policy.table import TableLayout
    from egressproxy.ports import PortSpan, Protocol

EVERYONE: Final = -1
_DAY_S: Final = 86400.0


def end_of_day(day: date | None) -> float:
    """POSIX seconds when a UTC day is over; never for ``None``."""
    return float("inf") if day is None else timegm(day.timetuple()) + _DAY_S


@dataclass(frozen=True, slots=True)
class Gate:
    """What besides its names and addresses decides whether a rule counts; many rules share one.

    ``sources`` is the number of a source set, or ``EVERYONE``. From ``expires`` on the rule does
    not count; an allow that would have is worth its own reason.
    """

    ports: tuple[PortSpan, ...]
    sources: int
    expires: float
    is_allow: bool

    def admits(self, protocol: Protocol, port: int) -> bool:
        """Whether a port of a protocol is one of this gate's."""
        return any(
            span.first <= port <= span.last and span.protocol == protocol for span in self.ports
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The policy's own settings and what compiling found out; small, whatever the policy's size.

    Times are POSIX seconds. ``boundaries`` are the moments at which a date takes effect, ascending.
    ``tcp_udp_ports`` has a non-zero octet for each of the 65536 ports that pass 1 may decide.
    """

    cloud: str
    digest: str
    requirements: tuple[str, ...]
    mode: Mode
    audit_ends: float
    warn_ends: float
    destination: Destination
    ech: Ech
    refusal: Refusal
    on_reload: OnReload
    boundaries: tuple[float, ...]
    tcp_udp_ports: bytes
    application_ports: frozenset[tuple[Protocol, int]]
    depths: Depths
    layout: TableLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A compiled policy as data.

    ``rules`` need not carry what only the matcher reads (patterns, lists, networks).
    ``gate_of[i]`` is the gate of rule ``i``. ``groups`` are (source set, name) of the policy's
    ``sources`` in document order. ``anywhere`` is the matcher's group of rules with
    ``any_destination``. ``known`` has the names that ``mode: warn-on-new`` does not take for new;
    without it that is every name.
    """

    facts: Facts
    rules: Sequence[Rule]
    gates: Sequence[Gate]
    gate_of: Sequence[int]
    groups: Sequence[tuple[int, str]]
    anywhere: int | None
    matcher: Matcher
    known: Known | None = None

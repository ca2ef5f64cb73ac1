"""What supervisor and recorder say to each other, beside the pipe that carries records.

The same kind of socket and packets as between supervisor and workers (``service.channel``): first
a ``RecorderSpec``, then notes; back comes one ``Opened`` or ``Refused``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderSpec:
    """Where a recorder writes, and what it has to know of the service.

    ``store`` may hold a password, so it is in no text of this object. ``since`` is POSIX seconds of
    the service's start, ``allows`` which allowed flows it records: ``all``, ``none`` or ``1/100``.
    """

    store: str = field(repr=False)
    gateway: str
    max_age_days: int
    max_bytes: int
    allows: str
    since: float
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadNote:
    """A reload, for the history; ``report`` is JSON."""

    at: float
    outcome: str
    digest: str
    previous: str
    report: str


@dataclass(frozen=True, slots=True)
class RuleHitsNote:
    """Packets by the id of a network rule since the last note."""

    packets: Mapping[str, int]
    at: float


Note = ReloadNote | RuleHitsNote


@dataclass(frozen=True, slots=True)
class Opened:
    """The store takes records. ``reloads`` are reports of the past, oldest first."""

    reloads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The store could not be opened; ``is_final`` where trying again cannot help."""

    message: str
    hint: str
    code: str
    is_final: bool


Answer = Opened | Refused

"""What supervisor and recorder say to each other, beside the pipe that carries records.

The same kind of socket and packets as between supervisor and workers (``service.channel``): first
a ``RecorderSpec``, then notes; back comes one ``Opened`` or ``Refused``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from egressproxy.export.outlet import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderSpec:
    """Where a recorder writes, and what it has to know of the service.

    ``store`` may hold a password, so it is in no text of this object; ``None`` is no store.
    ``since`` is POSIX seconds of the service's start, ``allows`` which allowed flows it records:
    ``all``, ``none`` or ``1/100``. Files of ``exports`` rotate as the record log does.
    ``is_again``: another recorder of this service was there before.
    """

    store: str | None = field(repr=False)
    gateway: str
    max_age_days: int
    max_bytes: int
    allows: str
    since: float
    workers: int
    exports: tuple[Target, ...] = field(default=(), repr=False)
    rotate_bytes: int = 0
    rotate_files: int = 1
    is_again: bool = False


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


@dataclass(frozen=True, slots=True)
class ReopenNote:
    """SIGUSR1: somebody renamed files, they are to be opened by name again."""


Note = ReloadNote | RuleHitsNote
"""What the store keeps."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Store and exports take records. ``reloads`` are reports of the past, oldest first."""

    reloads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Store or export could not be opened; ``is_final`` where trying again cannot help."""

    message: str
    hint: str
    code: str
    is_final: bool


Answer = Opened | Refused

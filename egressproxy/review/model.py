"""What a review is made of: subjects, filters, classes, and what a question is answered with.

A *subject* is what many records have in common: the same client wanted the same thing and got the
same answer for the same reason. The store counts subjects by the hour; all else (lists, classes,
suggestions, replay) is made of ``SubjectCount``. Nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egressproxy.observe.record import NameSource, Plane
    from egressproxy.policy.networks import Network
    from egressproxy.policy.verdict import Action, Pass, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The common part of records; ``id`` is the store's number for it.

    ``dst_ip`` tells subjects apart only where there is no name; otherwise it is the last one seen.
    ``note`` is the catalog's word at the time. ``is_overflow`` marks what stands for the many
    subjects of one source beyond the hour's budget: then ``name`` is missing.
    """

    id: int
    gateway: str
    action: Action
    reason: Reason
    rule: str | None
    decided_by: Pass
    would_deny: bool
    plane: Plane
    protocol: str
    src_ip: str
    source_group: str | None
    dst_ip: str | None
    dst_port: int
    name: str | None
    name_source: NameSource
    note: str
    alpn: tuple[str, ...] = ()
    ech: bool = False
    hello_split: bool = False
    is_overflow: bool = False

    @property
    def is_denied(self) -> bool:
        """Whether it was refused, or would have been but for audit."""
        return self.action == "deny" or self.would_deny

    @property
    def target(self) -> str:
        """What was wanted, as a person reads it: the name, else the address, else nothing."""
        return self.name or self.dst_ip or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectCount:
    """A subject in a span of time; times are POSIX seconds of the first and last flow in it."""

    subject: Subject
    count: int
    first_at: float
    last_at: float
    bytes_up: int = 0
    bytes_down: int = 0


class Group(StrEnum):
    """What a list has a line for."""

    NAME = "name"
    """The name, or the address where there was none."""
    SOURCE = "source"
    REASON = "reason"
    RULE = "rule"
    PORT = "port"
    CLASS = "class"
    REQUIREMENT = "requirement"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which flows are meant; an empty tuple is no condition.

    ``since`` and ``until`` are POSIX seconds; beyond two hours back the store counts by the hour,
    so they then mean whole hours. ``names`` are exact, or ``*`` stands for any text (``md-*``,
    ``*.azure.com``); a flow without a name has its address for one. ``sources`` and
    ``source_groups`` widen each other. ``is_denied`` is true for denies and what audit let pass,
    false for allows, ``None`` for both.
    """

    since: float | None = None
    until: float | None = None
    is_denied: bool | None = True
    sources: tuple[Network, ...] = ()
    source_groups: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    planes: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    classes: tuple[Class, ...] = ()


class Class(StrEnum):
    """What a deny is to the person who reviews it, the most urgent first."""

    SUSPICIOUS = "suspicious"
    MISSING_REQUIREMENT = "missing requirement"
    NEAR_MISS = "near miss"
    UNKNOWN = "unknown"
    OPTIONAL = "optional"
    HARMLESS = "harmless"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The class of a denied subject and why, in words.

    ``requirement`` is the catalog's that lacks (``aks/azure-monitor``). ``symptom`` is what people
    see in AKS while this is denied ("node bootstrap fails with CSE exit code 50").
    """

    kind: Class
    why: str = ""
    requirement: str | None = None
    symptom: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewLine:
    """One line of ``denies`` or ``flows``: all subjects with the same ``key``.

    ``finding`` is that of the most urgent subject (``None`` for allows). ``sources`` counts
    distinct client addresses, ``source_sample`` holds some of them; ``targets``, ``ports``,
    ``reasons`` and ``rules`` are the commonest first, at most a handful each, of
    ``target_count`` distinct targets. ``audited`` flows would have been denied, and passed.
    ``note`` is the catalog's word.
    """

    key: str
    count: int
    first_at: float
    last_at: float
    sources: int
    source_sample: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    note: str = ""
    finding: Finding | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    target_count: int = 0
    audited: int = 0
    gateways: tuple[str, ...] = ()
    subjects: tuple[SubjectCount, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Point:
    """Flows of one bucket of time; ``parts`` is ``(class or reason, count)``, commonest first."""

    at: float
    count: int
    parts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """One record as it was logged, with its subject; ``id`` grows with every record stored."""

    id: int
    at: float
    subject: Subject
    flow_id: str
    src_port: int
    dst_ip: str | None
    dialled_ip: str | None
    tls_versions: tuple[str, ...]
    destination_match: str
    bytes_up: int
    bytes_down: int
    requests: int
    duration_s: float
    close_reason: str
    policy: str
    count: int

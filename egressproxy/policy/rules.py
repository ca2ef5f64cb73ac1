"""The loaded policy: what ``load`` gives and ``compile`` takes. Frozen, flat, in document order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from egressproxy.policy.verdict import Action

if TYPE_CHECKING:
    from datetime import date
    from ipaddress import IPv4Network, IPv6Network
    from pathlib import Path

    from egressproxy.patterns import Pattern
    from egressproxy.policy.lint_finding import Code
    from egressproxy.policy.tag_edition import TagEdition
    from egressproxy.ports import PortSpan


_DAY_S: Final = 86400
DEFAULT_WARN_WINDOW_S: Final = 7 * _DAY_S


class Mode(StrEnum):
    """Which denies are enforced, and which only recorded."""

    ENFORCE = "enforce"
    AUDIT = "audit"
    WARN_ON_NEW = "warn-on-new"
    """Enforced, but for names that no rule matches and that are new: those are only recorded."""


class Destination(StrEnum):
    """What the client's own destination address counts for when an allowed name is dialled."""

    RESOLVE = "resolve"
    """Nothing: the name's own addresses are dialled, as Azure Firewall does."""
    PREFER_ORIGINAL = "prefer-original"
    """Dialled where it is one of the name's addresses."""
    STRICT = "strict"
    """Must be one of the name's addresses, else ``destination_mismatch``."""


class SniCheck(StrEnum):
    """How the SNI inside a CONNECT tunnel is held to the CONNECT name."""

    SAME = "same"
    ANY_ALLOWED = "any-allowed"


class Ech(StrEnum):
    """What an Encrypted ClientHello extension (real or GREASE) counts for."""

    ALLOW = "allow"
    REFUSE = "refuse"


class Refusal(StrEnum):
    """How a denied client is told."""

    ALERT = "alert"
    """TLS alert ``access_denied``, HTTP 403."""
    RESET = "reset"
    DROP = "drop"
    """Silence until the hello timeout."""


class OnReload(StrEnum):
    """What a reload does to open flows that the new policy denies."""

    CLOSE = "close"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a rule was written; ``document`` and ``section`` are set for catalog rows."""

    file: str
    line: int
    column: int = 0
    document: str = ""
    section: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class NameList:
    """A ``list:`` file: canonical pattern texts, in file order, up to millions.

    ``wildcard`` is the first entry that is no plain name, or empty.
    """

    path: Path
    entries: tuple[str, ...]
    wildcard: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One ordered rule, or one row of a requirement.

    ``sources`` is ``None`` for everyone, else the networks a client must be in (an empty tuple is
    nobody). ``networks`` match the original destination in pass 1; ``any_destination`` matches all.
    ``until`` is the last UTC day on which the rule counts; ``audit`` is a rule whose deny, or whose
    allow made by audit, is recorded and not enforced until the day after ``audit_until``.
    ``accept`` are findings of the lint that are meant; they change no verdict.
    """

    id: str
    action: Action
    ports: tuple[PortSpan, ...]
    origin: Origin
    patterns: tuple[Pattern, ...] = ()
    lists: tuple[NameList, ...] = ()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    tags: tuple[str, ...] = ()
    any_destination: bool = False
    sources: tuple[IPv4Network | IPv6Network, ...] | None = None
    source_groups: tuple[str, ...] = ()
    until: date | None = None
    audit: bool = False
    audit_until: date | None = None
    destination: Destination = Destination.RESOLVE
    sni: SniCheck = SniCheck.SAME
    ech: Ech = Ech.ALLOW
    addresses: tuple[IPv4Network | IPv6Network, ...] = ()
    requirement: str | None = None
    accept: tuple[Code, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A whole policy: rules in order of judgement (rules first, then requirements).

    ``digest`` is a hex SHA-256 over the normal form: equal policies have equal digests, whatever
    their comments and files. ``files`` are all files it was read from, for the watcher;
    ``service_tags`` is the edition of the service tag file among them. ``parameters`` are those of
    the root file, as the catalog takes them; the rules were made with them and they count no more.
    ``warn_until`` and ``warn_window_s`` are of ``mode: warn-on-new``: its last UTC day, and for how
    long a name is new after it was first seen.
    """

    cloud: str
    rules: tuple[Rule, ...]
    sources: tuple[tuple[str, tuple[IPv4Network | IPv6Network, ...]], ...]
    requirements: tuple[str, ...]
    files: tuple[Path, ...]
    digest: str
    mode: Mode = Mode.ENFORCE
    audit_until: date | None = None
    warn_until: date | None = None
    warn_window_s: int = DEFAULT_WARN_WINDOW_S
    destination: Destination = Destination.RESOLVE
    ech: Ech = Ech.ALLOW
    refusal: Refusal = Refusal.ALERT
    on_reload: OnReload = OnReload.CLOSE
    accept: tuple[Code, ...] = ()
    service_tags: TagEdition | None = None
    parameters: tuple[tuple[str, str | bool | tuple[str, ...]], ...] = ()

    @property
    def warn_window(self) -> str:
        """``warn_window_s`` as a policy writes it: ``7d``, ``12h``."""
        days, rest = divmod(self.warn_window_s, _DAY_S)
        return f"{self.warn_window_s // 3600}h" if rest else f"{days}d"

"""What the lint finds: ``Finding``, and the stable ``Code`` of what it is about."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.policy.rules import Origin, Rule

MAX_NAMED: Final = 3
"""Rules, names or ranges that a finding names; the rest is counted."""


class Severity(StrEnum):
    """How much a finding asks for."""

    WARNING = "warning"
    """Change it, or accept it: ``--strict`` fails."""
    INFO = "info"
    """Know it: nothing fails."""


class Code(StrEnum):
    """What a finding is about; stable, and what ``accept`` names."""

    BY_ADDRESS = "by-address"
    """A wide range, a service tag, the tunnel, or a name on tcp:443, tcp:80 or udp:443 opens by
    address: the name is not checked."""
    DEAD_NAMES = "dead-names"
    """A network rule decides a port for every address, so no application rule there ever counts."""
    SHADOWED = "shadowed"
    """A rule, or a name or range of it, never decides: an earlier one decides it otherwise."""
    REDUNDANT = "redundant"
    """A rule never decides: earlier ones do the same to all of it."""
    DUPLICATE = "duplicate"
    """A rule, or a requirement, is there twice."""
    MULTI_TENANT = "multi-tenant"
    """A wildcard under which any customer of a service can have a name."""
    OVER_WIDE = "over-wide"
    """A wildcard so high that such services lie below it."""
    ALL_API_SERVERS = "all-api-servers"
    """The API server of every tenant's cluster in the region."""
    MISSING_APEX = "missing-apex"
    """``*.suffix`` without a rule for the suffix itself, which it does not cover."""
    DEDICATED_SWITCH = "dedicated-switch"
    """A registry whose layers come from everybody's blob storage: what to know before it is given
    dedicated data endpoints."""
    OLD_TUNNEL = "old-tunnel"
    """Ports of a tunnel that clusters with konnectivity in AzureCloud do not use."""
    API_SERVER_BY_ADDRESS = "api-server-by-address"
    """Pods reach the API server by address; an annotation gives them its name."""
    EXPIRED = "expired"
    """A rule whose ``until`` has passed."""
    AUDIT_OVER = "audit-over"
    """An audit whose ``audit_until`` has passed, or a ``warn-on-new`` whose ``warn_until`` has."""
    ENDLESS_AUDIT = "endless-audit"
    """An audit without ``audit_until``: it never enforces by itself."""
    OLD_TAGS = "old-tags"
    """A service tag file older than four of Microsoft's weekly editions."""
    NOBODY = "nobody"
    """A rule that counts for no client."""
    PUBLIC_SOURCE = "public-source"
    """A ``from`` outside the private ranges, which are the only clients unless options say more."""
    UNUSED_GROUP = "unused-group"
    """A group of ``sources`` that no rule counts for."""
    UNUSED_ACCEPT = "unused-accept"
    """An ``accept`` of what is not found."""

    @property
    def severity(self) -> Severity:
        """What every finding of this code asks for."""
        return Severity.INFO if self in _INFO else Severity.WARNING


_INFO: Final = frozenset(
    {
        Code.MISSING_APEX,
        Code.DEDICATED_SWITCH,
        Code.API_SERVER_BY_ADDRESS,
        Code.ENDLESS_AUDIT,
        Code.PUBLIC_SOURCE,
        Code.UNUSED_GROUP,
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; without ``rule_id`` it is about the whole policy.

    ``accepted`` is one that the policy itself says is meant.
    """

    code: Code
    text: str
    hint: str
    rule_id: str | None = None
    origin: Origin | None = None
    accepted: bool = False

    @classmethod
    def of(cls, rule: Rule, code: Code, text: str, hint: str) -> Self:
        """A finding about a rule."""
        return cls(code, text, hint, rule.id, rule.origin)

    @property
    def severity(self) -> Severity:
        """What it asks for; of an accepted one, what it would."""
        return self.code.severity

    @property
    def fails(self) -> bool:
        """Whether ``--strict`` fails for it."""
        return self.severity is Severity.WARNING and not self.accepted

    def __str__(self) -> str:
        place = f"{self.origin}: " if self.origin else ""
        about = f"{self.rule_id}: " if self.rule_id else ""
        weight = "accepted" if self.accepted else self.severity
        return f"{place}{weight}: {about}{self.text}, hint: {self.hint} [{self.code}]"


def named(items: Sequence[object]) -> str:
    """``a``, ``a and b``, ``a, b, c and 3 more``."""
    told = [str(item) for item in items[:MAX_NAMED]]
    if (more := len(items) - MAX_NAMED) > 0:
        told.append(f"{more} more")
    return " and ".join([", ".join(told[:-1]), *told[-1:]] if len(told) > 1 else told)

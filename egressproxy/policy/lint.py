"""``lint``: what a valid policy does that its author may not mean. Findings change no verdict."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from egressproxy.catalog.loader import load_catalog
from egressproxy.patterns import Pattern, is_public_suffix
from egressproxy.policy.program import end_of_day
from egressproxy.policy.rules import Mode, Origin
from egressproxy.policy.verdict import Action

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from ipaddress import IPv4Network, IPv6Network

    from egressproxy.policy.rules import Policy, Rule

MULTI_TENANT: Final = frozenset(
    f"{service}.core.{cloud}"
    for service in ("blob", "dfs", "file", "queue", "table", "web")
    for cloud in ("windows.net", "chinacloudapi.cn", "usgovcloudapi.net")
) | {
    "azurecr.io",
    "azurecr.cn",
    "azurecr.us",
    "data.azurecr.io",
    "geo.azurecr.io",
    "vault.azure.net",
    "vault.azure.cn",
    "vault.usgovcloudapi.net",
    "core.windows.net",
    "core.chinacloudapi.cn",
    "core.usgovcloudapi.net",
    "azurewebsites.net",
    "azure-api.net",
    "azurefd.net",
    "azureedge.net",
    "trafficmanager.net",
    "cloudapp.azure.com",
    "servicebus.windows.net",
    "database.windows.net",
    "documents.azure.com",
    "redis.cache.windows.net",
    "search.windows.net",
    "githubusercontent.com",
    "amazonaws.com",
    "cloudfront.net",
    "googleapis.com",
}
"""Suffixes under which anybody can have a name, beyond what publicsuffix.org lists as private."""

_API_SERVERS: Final = re.compile(
    r"hcp\.[a-z0-9]+\.(.+\.)?(azmk8s\.io|azk8s\.cn|containerservice\.azure\.us)"
)
_REGISTRY: Final = "acr"
_TUNNEL: Final = "aks/tunnel"
"""What is open to it is told however narrow: it carries commands into the cluster."""
_WIDE: Final = {4: 24, 6: 56}


class Severity(StrEnum):
    """How much a finding asks for."""

    WARNING = "warning"
    INFO = "info"


class Code(StrEnum):
    """What a finding is about; stable."""

    BY_ADDRESS = "by-address"
    MULTI_TENANT = "multi-tenant"
    MISSING_APEX = "missing-apex"
    EXPIRED = "expired"
    AUDIT_OVER = "audit-over"
    DEDICATED_SWITCH = "dedicated-switch"
    ALL_API_SERVERS = "all-api-servers"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; ``origin`` and ``rule_id`` are ``None`` where it is about the whole policy."""

    code: Code
    severity: Severity
    rule_id: str | None
    origin: Origin | None
    text: str
    hint: str

    def __str__(self) -> str:
        place = f"{self.origin}: " if self.origin else ""
        about = f"{self.rule_id}: " if self.rule_id else ""
        return f"{place}{self.severity}: {about}{self.text}, hint: {self.hint} [{self.code}]"


def lint(policy: Policy, *, now: float | None = None) -> tuple[Finding, ...]:
    """All findings, in rule order; ``now`` is POSIX seconds, by default the clock's."""
    now = time.time() if now is None else now
    exact = {
        pattern.suffix for rule in policy.rules for pattern in rule.patterns if pattern.is_exact
    }
    found = [finding for rule in policy.rules for finding in _of_rule(rule, exact, now)]
    if policy.mode is Mode.AUDIT and end_of_day(policy.audit_until) <= now:
        text = f"audit ended on {policy.audit_until}: it enforces"
        hint = "set a later audit_until, or mode: enforce"
        found.append(Finding(Code.AUDIT_OVER, Severity.WARNING, None, None, text, hint))
    return tuple(found)


def _of_rule(rule: Rule, exact: AbstractSet[str], now: float) -> Iterator[Finding]:
    for code, severity, text, hint in _remarks(rule, exact, now):
        yield Finding(code, severity, rule.id, rule.origin, text, hint)


_Remark = tuple[Code, Severity, str, str]


def _remarks(rule: Rule, exact: AbstractSet[str], now: float) -> Iterator[_Remark]:
    if end_of_day(rule.until) <= now:
        text = f"expired on {rule.until}"
        yield Code.EXPIRED, Severity.WARNING, text, "set a later until, or remove it"
    elif rule.audit and end_of_day(rule.audit_until) <= now:
        text = f"its audit ended on {rule.audit_until}"
        yield (
            Code.AUDIT_OVER,
            Severity.WARNING,
            text,
            "set a later audit_until, or remove mode: audit",
        )
    if rule.action is not Action.ALLOW:
        return
    yield from _by_address(rule)
    for pattern in rule.patterns:
        yield from _of_pattern(rule, pattern, exact)
    if rule.requirement == _REGISTRY and any(not p.is_exact for p in rule.patterns):
        text, _, hint = load_catalog().requirement(_REGISTRY).warning.partition(". ")
        yield Code.DEDICATED_SWITCH, Severity.INFO, text, hint.rstrip(".")


def _by_address(rule: Rule) -> Iterator[_Remark]:
    """What opens by address: whoever has one of these addresses, whatever name is spoken."""
    what = "any address" if rule.any_destination else ""
    if rule.tags:
        what = "service tag " + ", ".join(rule.tags)
    elif wide := [net for net in rule.networks if _is_wide(net) or rule.requirement == _TUNNEL]:
        what = f"{wide[0]}" + (f" and {len(wide) - 1} more ranges" if len(wide) > 1 else "")
    if what:
        spans = ", ".join(map(str, rule.ports))
        text = f"{what} on {spans} is allowed by address: the name is not checked"
        yield Code.BY_ADDRESS, Severity.WARNING, text, "allow names with https where there are any"


def _is_wide(network: IPv4Network | IPv6Network) -> bool:
    return not network.is_private and network.prefixlen < _WIDE[network.version]


def _of_pattern(rule: Rule, pattern: Pattern, exact: AbstractSet[str]) -> Iterator[_Remark]:
    if pattern.is_exact:
        return
    suffix = pattern.suffix
    if _API_SERVERS.fullmatch(suffix):
        text = f"{pattern} is the API server of every tenant's cluster in the region"
        hint = "set api_server_fqdn to your cluster's own"
        yield Code.ALL_API_SERVERS, Severity.WARNING, text, hint
    elif suffix in MULTI_TENANT or is_public_suffix(suffix, private=True):
        text = f"{pattern} is everybody's: any customer can have a name there"
        yield Code.MULTI_TENANT, Severity.WARNING, text, "list the names that you use"
    elif not pattern.prefix and rule.requirement is None and suffix not in exact:
        text = f"{pattern} does not cover {suffix}"
        yield Code.MISSING_APEX, Severity.INFO, text, f"add {suffix} if it is meant"

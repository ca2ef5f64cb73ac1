"""Whom rules count for: nobody, strangers; and groups that no rule names."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from egressproxy.policy.lint_finding import Code, Finding, named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.policy.lint_survey import Survey
    from egressproxy.policy.networks import Network

_PRIVATE: Final = tuple(
    map(
        ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
    )
)
"""Who is served unless options say otherwise (RFC 1918, RFC 6598, RFC 4193)."""


def source_findings(survey: Survey) -> Iterator[Finding]:
    """Of the policy, then of each rule."""
    policy = survey.policy
    used = {name for rule in policy.rules for name in rule.source_groups}
    for name, _ in policy.sources:
        if name not in used:
            text = f"no rule counts for the source group {name}: it only names clients in records"
            yield Finding(Code.UNUSED_GROUP, text, "name it in a from:, or remove it")
    told: set[Network] = set()
    for rule in policy.rules:
        public = [net for net in rule.sources or () if net not in told and not _is_private(net)]
        if public:
            told.update(public)
            text = f"{named(public)}: the firewall serves clients of private ranges unless told"
            hint = "write private ranges, or list these in the option clients of egressproxy up"
            yield Finding.of(rule, Code.PUBLIC_SOURCE, text, hint)
        if rule.sources == ():
            text = "it counts for no client: none of its sources is among those of its include"
            yield Finding.of(rule, Code.NOBODY, text, "widen the include's from:, or remove it")


def _is_private(network: Network) -> bool:
    """Whether some client in it can be private; ``0.0.0.0/0`` is everyone, and meant so."""
    return (
        any(
            network.version == private.version and network.overlaps(private) for private in _PRIVATE
        )
        or not network.prefixlen
    )

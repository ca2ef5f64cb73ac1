"""What the admin pages say, as JSON objects; no secret is among it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from egressproxy.service.report import moment, report_view

if TYPE_CHECKING:
    from egressproxy.policy.rules import Policy, Rule
    from egressproxy.service.firewall import Firewall
    from egressproxy.service.generation import Generation
    from egressproxy.service.report import ReloadReport
    from egressproxy.service.supervisor import Supervisor

MAX_RULES: Final = 10_000
MAX_NETWORKS: Final = 20
"""Networks of one rule that are shown: a service tag has thousands."""


def readiness(supervisor: Supervisor) -> dict[str, Any]:
    """Whether the service is ready, and each worker's part in it."""
    slots = supervisor.crew.slots if supervisor.crew else []
    return {
        "ready": supervisor.is_ready,
        "phase": str(supervisor.phase),
        "workers": [
            {
                "worker": slot.index,
                "pid": slot.process.pid if slot.process else None,
                "serving": slot.is_serving,
                "restarts": slot.restarts,
            }
            for slot in slots
        ],
        "firewall": _firewall(supervisor.firewall),
    }


def policy_page(generation: Generation, report: ReloadReport | None) -> dict[str, Any]:
    """The policy in force, and what became of the last reload."""
    policy = generation.policy
    return {
        "digest": policy.digest,
        "loaded_at": moment(generation.loaded_at),
        "cloud": policy.cloud,
        "mode": str(policy.mode),
        "audit_until": str(policy.audit_until) if policy.audit_until else None,
        "warn_until": str(policy.warn_until) if policy.warn_until else None,
        "requirements": list(policy.requirements),
        "sources": _sources(policy),
        "files": [str(path) for path in policy.files],
        "service_tags": policy.service_tags.facts() if policy.service_tags else None,
        "rule_count": len(policy.rules),
        "rules": [rule_view(rule) for rule in policy.rules[:MAX_RULES]],
        "last_reload": report_view(report) if report else None,
    }


def rule_view(rule: Rule) -> dict[str, Any]:
    """One rule as a person would write it, with where it was written."""
    return {
        "id": rule.id,
        "action": str(rule.action),
        "to": _destinations(rule),
        "ports": [str(span) for span in rule.ports],
        "from": list(rule.source_groups) or _shown(rule.sources),
        "until": str(rule.until) if rule.until else None,
        "audit": rule.audit,
        "origin": str(rule.origin),
    }


def _firewall(firewall: Firewall | None) -> dict[str, Any] | None:
    """The kernel's part, where there is one."""
    if firewall is None:
        return None
    return {
        "up": firewall.is_up,
        "policy": firewall.digest,
        "intercept": str(firewall.options.intercept),
        "problems": list(firewall.problems),
    }


def _destinations(rule: Rule) -> list[str]:
    if rule.any_destination:
        return ["any"]
    found = [str(pattern) for pattern in rule.patterns]
    found += [f"list:{names.path} ({len(names.entries)} names)" for names in rule.lists]
    found += [f"tag:{tag}" for tag in rule.tags]
    return found + (_shown(rule.networks) or [] if not rule.tags else [])


def _sources(policy: Policy) -> dict[str, list[str]]:
    return {name: [str(network) for network in networks] for name, networks in policy.sources}


def _shown(networks: tuple[Any, ...] | None) -> list[str] | None:
    if networks is None:
        return None
    shown = [str(network) for network in networks[:MAX_NETWORKS]]
    rest = len(networks) - len(shown)
    return [*shown, f"… {rest} more"] if rest else shown

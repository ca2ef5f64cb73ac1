"""Pass 1 as chains: of one policy, and of two between which a reload is under way.

Between two policies a new connection is forwarded only where both forward it::

    old policy   deny ─▶ dropped     allow ─▶ new policy judges     neither ─▶ proxied, unless the
                                                                    new one denies; else dropped

and to the proxy goes what both take there, or one does and the other forwards; the proxy then
judges it by the old policy or the new one. What a policy lets pass in audit counts as allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.kernel.marks import OLD_ALLOWS
from egressproxy.kernel.nft_chains import proxied_ports, to_proxy
from egressproxy.kernel.nft_names import Outcome
from egressproxy.kernel.nft_rules import counted, rule_lines
from egressproxy.kernel.nft_text import Chain, count, has, put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.kernel.firewall_options import FirewallOptions
    from egressproxy.kernel.kernel_policy import KernelPolicy, KernelRule
    from egressproxy.kernel.nft_sets import Sets

_QUIC: Final = f"udp dport 443 {count(Outcome.QUIC_REFUSED)} goto quic"
_DEFAULT_DENY: Final = f"{count(Outcome.DEFAULT_DENY)} goto deny"
_WOULD_DENY: Final = f"{count(Outcome.WOULD_DENY)} goto would_deny"
_RULES: Final = "rules for tcp and udp, first match"
_UNMATCHED: Final = "what pass 1 does not decide"


def judging_chains(policy: KernelPolicy, options: FirewallOptions, sets: Sets) -> Iterator[Chain]:
    """``pass_1`` and ``unmatched`` of a policy."""

    def outcome(rule: KernelRule) -> str:
        return counted(rule, _end(rule, "allow", "would_deny"))

    rules = rule_lines(policy.rules, sets, outcome)
    yield Chain("pass_1", _RULES, (*rules, "goto unmatched"))
    audit = (_WOULD_DENY,) if policy.is_audit else ()
    proxied = to_proxy(options, policy.application_ports)
    yield Chain("unmatched", _UNMATCHED, (*proxied, _QUIC, *audit, _DEFAULT_DENY))


def common_ports(old: KernelPolicy, new: KernelPolicy) -> tuple[int, ...]:
    """The application ports of both policies."""
    return tuple(sorted({*old.application_ports} & {*new.application_ports}))


def transition_chains(
    old: KernelPolicy, new: KernelPolicy, options: FirewallOptions, sets: Sets
) -> Iterator[Chain]:
    """The same between two policies: ``pass_1`` is the old one's.

    The old policy counts what it denies; what it allows is counted where the new one judges it.
    """

    def by_old(rule: KernelRule) -> str:
        return "goto old_allows" if rule.passes else counted(rule, "deny")

    def by_new(rule: KernelRule) -> str:
        return counted(rule, _end(rule, "both_allow", "both_would_deny"))

    old_rules = rule_lines(old.rules, sets, by_old)
    new_rules = rule_lines(new.rules, sets, by_new)
    both = has("meta", OLD_ALLOWS)
    proxied = to_proxy(options, common_ports(old, new))
    not_yet = proxied_ports(options, new.application_ports)  # audit does not forward these
    audit = (*(f"{ports} {_DEFAULT_DENY}" for ports in not_yet), f"{both} {_WOULD_DENY}")
    softened = audit if new.is_audit else ()
    yield Chain("pass_1", _RULES, (*old_rules, "goto old_unmatched"))
    yield Chain("old_unmatched", "no rule of the old policy", _old_unmatched(old, options))
    yield Chain(
        "old_allows", "the old policy forwards it", (put("meta", OLD_ALLOWS), "goto new_pass_1")
    )
    yield Chain("new_pass_1", "rules of the new policy", (*new_rules, "goto unmatched"))
    for end in ("allow", "would_deny"):
        yield Chain(
            f"both_{end}",
            "the new policy forwards it, if the old one does",
            (f"{both} goto {end}", "goto unmatched"),
        )
    yield Chain("unmatched", _UNMATCHED, (*proxied, _QUIC, *softened, _DEFAULT_DENY))


def _end(rule: KernelRule, allow: str, would_deny: str) -> str:
    if not rule.passes:
        return "deny"
    return would_deny if rule.would_deny else allow


def _old_unmatched(old: KernelPolicy, options: FirewallOptions) -> tuple[str, ...]:
    """What it takes to the proxy, or forwards for audit, the new policy judges; all else ends."""
    proxied = proxied_ports(options, old.application_ports)
    return (
        *(f"{ports} goto new_pass_1" for ports in proxied),
        _QUIC,
        "goto old_allows" if old.is_audit else _DEFAULT_DENY,
    )

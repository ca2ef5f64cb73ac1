"""The hub's nftables text for a lab run: pass-1 openings ahead of REDIRECT or TPROXY.

This is the lab's stand-in for the product's own kernel firewall (an issue of its own): names in
pass-1 rules are resolved once from the lab's own zone, there is no set to refresh, nothing is
logged. The order is the product's: network rules first, then the application ports go to the
plane, then everything else is dropped.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from egressproxy.policy.verdict import Action
from lab import sites
from lab.topology import INSIDE, OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from egressproxy.policy.rules import Policy, Rule
    from lab.namespaces import Namespace

TABLE: Final = "egressproxy_lab"
REDIRECT_PORT: Final = 15001
TPROXY_PORT: Final = 15002
_MARK: Final = 1
_ROUTE_TABLE: Final = "100"
_SUFFIX: Final = {4: "ip", 6: "ip6"}


class Mode(StrEnum):
    """How application ports reach the plane."""

    FORWARD = "forward"
    """Not at all: everything is forwarded, to prove the lab without the product."""
    REDIRECT = "redirect"
    TPROXY = "tproxy"


@dataclass(frozen=True, slots=True)
class Opening:
    """One match of pass 1: from some networks (none: everyone) to some (none: everywhere)."""

    protocol: str
    first: int
    last: int
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    family: int
    allow: bool

    def __str__(self) -> str:
        parts = [f"meta nfproto ipv{self.family}"]
        word = _SUFFIX[self.family]
        if self.sources:
            parts.append(f"{word} saddr {{ {', '.join(self.sources)} }}")
        if self.destinations:
            parts.append(f"{word} daddr {{ {', '.join(self.destinations)} }}")
        ports = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        parts.append(f"{self.protocol} dport {ports} {'accept' if self.allow else 'drop'}")
        return " ".join(parts)


def openings(policy: Policy) -> tuple[Opening, ...]:
    """Pass 1 of a policy, in order of judgement."""
    return tuple(opening for rule in policy.rules for opening in openings_of(rule))


def script(mode: Mode, pass_1: Iterable[Opening], ports: Iterable[int]) -> str:
    """The whole nft text; loading it again replaces what was there in one transaction."""
    rules = "\n".join(f"    {opening}" for opening in pass_1)
    listed = ", ".join(str(port) for port in sorted(set(ports)))
    chains = "" if mode is Mode.FORWARD else _prerouting(mode, listed)
    policy = "accept" if mode is Mode.FORWARD else "drop"
    return f"""table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  chain pass_1 {{
{rules}
  }}
{chains}
  chain forward {{
    type filter hook forward priority filter; policy {policy};
    ct state established,related accept
    meta l4proto {{ icmp, icmpv6 }} accept
    iifname "{INSIDE}" jump pass_1
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{OUTSIDE}" masquerade
  }}
}}
"""


def apply(hub: Namespace, text: str) -> None:
    """Load the text in the hub, and the routing that TPROXY needs (once).

    Raises:
        LabError: with what nft said.
    """
    hub.run("nft", "-f", "-", stdin=text)
    for family in ("-4", "-6"):
        if "fwmark" not in hub.run("ip", family, "rule", "list"):
            rule = ("rule", "add", "fwmark", str(_MARK), "lookup", _ROUTE_TABLE)
            route = ("route", "add", "local", "default", "dev", "lo", "table", _ROUTE_TABLE)
            hub.run("ip", family, *rule)
            hub.run("ip", family, *route)


def _prerouting(mode: Mode, ports: str) -> str:
    head = f'iifname != "{INSIDE}" accept\n    fib daddr type local accept\n    jump pass_1'
    if mode is Mode.REDIRECT:
        return f"""  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    {head}
    tcp dport {{ {ports} }} redirect to :{REDIRECT_PORT}
  }}"""
    to = f"meta mark set {_MARK} accept"
    return f"""  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    {head}
    meta nfproto ipv4 tcp dport {{ {ports} }} tproxy ip to :{TPROXY_PORT} {to}
    meta nfproto ipv6 tcp dport {{ {ports} }} tproxy ip6 to :{TPROXY_PORT} {to}
  }}"""


def openings_of(rule: Rule) -> Iterator[Opening]:
    """What one rule opens or closes in pass 1, by family; nothing for a pass-2 rule."""
    destinations = [str(network) for network in rule.networks]
    for pattern in rule.patterns:
        destinations += sites.addresses_of(pattern.suffix) if pattern.is_exact else ()
    if not destinations and not rule.any_destination:
        return
    for span in rule.ports:
        if span.protocol.is_application:
            continue
        for family in (4, 6):
            to = _of_family(destinations, family)
            sources = _of_family([str(network) for network in rule.sources or ()], family)
            if (to or rule.any_destination) and (sources or rule.sources is None):
                yield Opening(
                    str(span.protocol),
                    span.first,
                    span.last,
                    sources,
                    () if rule.any_destination else to,
                    family,
                    rule.action is Action.ALLOW,
                )


def _of_family(networks: Iterable[str], family: int) -> tuple[str, ...]:
    return tuple(text for text in networks if ipaddress.ip_network(text).version == family)

"""The input chain: what reaches the gateway itself.

The proxy's listener is reached only by connections that ``nft_chains`` took there; whoever asks for
its port by itself is dropped like everyone else. Management is asked for before any state: an SSH
session from before conntrack was there goes on. What this host sends is its own affair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.kernel.firewall_options import Intercept
from egressproxy.kernel.kernel_policy import Ranges
from egressproxy.kernel.marks import PROXIED, TPROXY
from egressproxy.kernel.nft_names import LogWord, Outcome, comment_of
from egressproxy.kernel.nft_rules import port_set
from egressproxy.kernel.nft_sets import FAMILIES, ranges_of
from egressproxy.kernel.nft_text import ICMP_ERRORS, Chain, count, has, inside, log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.kernel.firewall_options import FirewallOptions
    from egressproxy.kernel.nft_sets import Sets

_NEIGHBOURS: Final = (
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } ip6 hoplimit 255",
    "icmpv6 type { mld-listener-query, mld-listener-report, mld2-listener-report }"
    " ip6 saddr fe80::/10",
)


def input_chain(options: FirewallOptions, sets: Sets) -> Chain:
    """Everything that this host may be asked."""
    return Chain(
        "input",
        "this host itself",
        (*_basics(), *_services(options, sets), *_pings(options, sets), *_rest(options)),
        "type filter hook input priority filter; policy drop;",
    )


def _basics() -> Iterator[str]:
    yield 'iif "lo" accept'
    yield "ct state established accept"
    yield from (f"ct state related {errors} accept" for errors in ICMP_ERRORS)
    yield from (f"{neighbours} accept" for neighbours in _NEIGHBOURS)
    yield 'udp sport 67 udp dport 68 accept comment "DHCP"'
    yield 'ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept comment "DHCPv6"'


def _services(options: FirewallOptions, sets: Sets) -> Iterator[str]:
    if options.proxy_port and options.intercept is Intercept.REDIRECT:
        yield (
            f"{has('ct', PROXIED)} ct status dnat tcp dport {options.proxy_port}"
            ' accept comment "application flows"'
        )
    elif options.proxy_port:
        yield (
            f"{has('meta', TPROXY)} {has('ct', PROXIED)} meta l4proto tcp"
            ' accept comment "application flows"'
        )
    admin = (options.admin_port,) if options.admin_port else ()
    explicit = (*options.management, *options.explicit_clients)
    for networks, ports, comment in (
        (options.management, (*options.ssh_ports, *admin), "management"),
        (explicit, options.explicit_ports, "explicit proxy"),
        (options.probes, admin, "health probes"),
    ):
        if ports:
            listed = port_set(map(str, dict.fromkeys(ports)))
            for match in inside("saddr", networks, sets):
                yield f"{match} tcp dport {listed} accept comment {comment_of(comment)}"


def _pings(options: FirewallOptions, sets: Sets) -> Iterator[str]:
    ranges = Ranges.of((*options.clients, *options.management))
    for version, protocol in zip(FAMILIES, ("icmp", "icmpv6"), strict=True):
        if ranges_of(ranges, version):
            match = sets.match("saddr", version, ranges)
            yield f"{match} {protocol} type echo-request limit rate 50/second accept"


def _rest(options: FirewallOptions) -> Iterator[str]:
    yield f"meta pkttype {{ broadcast, multicast }} {count(Outcome.INPUT)} drop"
    yield count(Outcome.INPUT)
    yield log(LogWord.INPUT, options)

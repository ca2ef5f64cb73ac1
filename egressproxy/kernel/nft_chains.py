"""The table's chains but those of pass 1 and ``input``, and what a packet meets in them.

::

    prerouting ── connection known ─▶ marked JUDGED (or taken to the proxy) ─▶ accept
        │  └───── for this host ────▶ accept: input judges
        ▼
      judge ── no client, no connection, … ─▶ dropped
        ▼
      pass_1 ── allow ─▶ allow: FORWARDED, JUDGED    ── deny ─▶ deny: logged, dropped
        ▼
     unmatched ── application port ─▶ proxy ── udp 443 ─▶ quic ── else ─▶ deny | would_deny

    forward: what is JUDGED and FORWARDED passes, all else is logged and dropped
    input: the gateway itself

Only ``allow`` marks a connection FORWARDED and only for such a connection is a packet JUDGED, so
nothing is forwarded that these chains did not judge: not when they are flushed (``forward`` has
policy drop), nor when the table is gone (the routing guard). Nothing here looks at an interface:
on an Azure NVA spokes and internet are behind the same one.

Rules of this file:

- A connection is known by its state *and* our mark. An expectation of a conntrack helper inherits
  its master's mark, so it is judged like any other, its mark taken away; of what is ``related``
  only ICMP errors pass by the mark.
- ``fib daddr type`` is asked after that: an answer to a masqueraded connection is for our own
  address until NAT, later in the same hook, gives it back its client's.
- Conntrack has put fragments together before us (priority -400), and the transport header is
  looked for behind IPv6 extension headers; a packet without one matches no tcp or udp rule.
- A routing header says that its packet goes on to somebody else than whom we judge (RFC 5095). IPv4
  has the sysctl ``accept_source_route``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.kernel.firewall_options import PRIVATE, Intercept, Snat
from egressproxy.kernel.marks import FORWARDED, JUDGED, PROXIED, TPROXY
from egressproxy.kernel.nft_names import LogWord, Outcome
from egressproxy.kernel.nft_rules import port_set
from egressproxy.kernel.nft_text import (
    ICMP_ERRORS,
    Chain,
    count,
    has,
    inside,
    lacks,
    log,
    outside,
    put,
)
from egressproxy.policy.networks import NEVER_DIALLED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.kernel.firewall_options import FirewallOptions
    from egressproxy.kernel.nft_sets import Sets

_OWN: Final = "{ local, broadcast, anycast, multicast }"
_INVALID: Final = f"{count(Outcome.INVALID)} drop"
_NO_CLIENT: Final = f"{count(Outcome.NO_CLIENT)} goto deny"
_UNJUDGED: Final = f"{count(Outcome.UNJUDGED)} goto deny"


def first_chains(options: FirewallOptions, sets: Sets) -> Iterator[Chain]:
    """Where every packet comes in, up to pass 1."""
    forwarded = f"{has('ct', FORWARDED)} {put('meta', JUDGED)} accept"
    proxied = f"{has('ct', PROXIED)} goto proxied"
    known = ("established", *(f"related {errors}" for errors in ICMP_ERRORS))
    yield Chain(
        "prerouting",
        "known connections, packets for this host, and all others to judge",
        (
            'iif "lo" accept',
            f"exthdr rt exists {_INVALID}",
            *(f"ct state {what} {end}" for what in known for end in (forwarded, proxied)),
            f"fib daddr type {_OWN} accept",
            "goto judge",
        ),
        "type filter hook prerouting priority mangle; policy accept;",
    )
    forbidden = (network for network, _ in NEVER_DIALLED)
    yield Chain(
        "judge",
        "to be forwarded, if at all",
        (
            f"ct state invalid,untracked {_INVALID}",
            f"ct state established {_UNJUDGED}",
            f"tcp flags & (fin | syn | rst | ack) != syn {_INVALID}",
            *(f"{match} {_NO_CLIENT}" for match in outside("saddr", options.clients, sets)),
            f"fib saddr type {_OWN} {_NO_CLIENT}",
            *(f"{match} goto forbidden" for match in inside("daddr", forbidden, sets)),
            "goto pass_1",
        ),
    )


def last_chains(options: FirewallOptions, application_ports: tuple[int, ...]) -> Iterator[Chain]:
    """What becomes of a judged packet, but for ``unmatched``."""
    yield Chain(
        "allow",
        "the kernel forwards this connection",
        (put("ct", FORWARDED, instead_of=PROXIED), put("meta", JUDGED), "accept"),
    )
    audit = log(LogWord.AUDIT, options)
    yield Chain("would_deny", "audit: enforcing would drop it", (audit, "goto allow"))
    yield Chain("deny", "dropped", (log(LogWord.DENY, options), "drop"))
    yield Chain(
        "quic",
        "refused so that clients fall back to TCP at once",
        (log(LogWord.QUIC, options), "reject with icmpx port-unreachable"),
    )
    yield Chain(
        "forbidden",
        "no rule of pass 1 opens these",
        (
            *to_proxy(options, application_ports),
            count(Outcome.FORBIDDEN),
            log(LogWord.FORBIDDEN, options),
            "drop",
        ),
    )
    mine = put("ct", PROXIED, instead_of=FORWARDED)
    yield Chain("proxy", "a new connection for the proxy", (mine, "goto proxied"))
    yield from _interception(options)


def to_proxy(options: FirewallOptions, application_ports: tuple[int, ...]) -> tuple[str, ...]:
    """Take application ports to the proxy, where there are any and there is one."""
    matches = proxied_ports(options, application_ports)
    return tuple(f"{match} {count(Outcome.PROXIED)} goto proxy" for match in matches)


def proxied_ports(options: FirewallOptions, application_ports: tuple[int, ...]) -> tuple[str, ...]:
    """A match of the application ports, where there are any and a proxy for them."""
    if not application_ports or not options.proxy_port:
        return ()
    return (f"tcp dport {port_set(map(str, application_ports))}",)


def forward_chains(options: FirewallOptions, sets: Sets) -> Iterator[Chain]:
    """Where forwarded packets pass and leave."""
    yield Chain(
        "forward",
        "only what prerouting marked",
        (
            f"{lacks('meta', JUDGED)} {_UNJUDGED}",
            f"{lacks('ct', FORWARDED)} {_UNJUDGED}",
            "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu",
            "accept",
        ),
        "type filter hook forward priority filter; policy drop;",
    )
    yield Chain(
        "output",
        "no word to clients of a nearer way: IPv6 has no send_redirects",
        ("icmpv6 type nd-redirect drop",),
        "type filter hook output priority filter; policy accept;",
    )
    if options.snat is Snat.NEVER:
        return
    private = inside("daddr", PRIVATE, sets) if options.snat is Snat.NON_PRIVATE else ()
    yield Chain(
        "postrouting",
        "forwarded connections leave with the address of this host",
        (
            f"{lacks('ct', FORWARDED)} accept",
            *(f"{match} accept" for match in private),
            "masquerade",
        ),
        "type nat hook postrouting priority srcnat; policy accept;",
    )


def _interception(options: FirewallOptions) -> Iterator[Chain]:
    """How packets of the proxy's connections reach its socket."""
    port = options.proxy_port
    if options.intercept is Intercept.REDIRECT:
        yield Chain("proxied", "a connection that the proxy has: NAT knows where to", ("accept",))
        if port:
            yield Chain(
                "intercept",
                "new connections for the proxy",
                (f"{has('ct', PROXIED)} meta l4proto tcp redirect to :{port}",),
                "type nat hook prerouting priority dstnat; policy accept;",
            )
        return
    here = f"{put('meta', TPROXY)} accept"
    tproxy = (f"meta l4proto tcp tproxy to :{port} {here}",) if port else ()
    yield Chain(
        "proxied",
        "to the socket of the proxy; dropped where there is none",
        (f"meta l4proto {{ icmp, ipv6-icmp }} {here}", *tproxy, "drop"),
    )

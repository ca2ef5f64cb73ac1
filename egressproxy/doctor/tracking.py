"""Conntrack and ports: the tables that run full under load, and then drop without a word.

A flow of the transparent plane has two conntrack entries (the client's, and ours to the upstream);
what pass 1 lets through has one. Sources: nf_conntrack-sysctl.rst, ip-sysctl.rst; the columns of
/proc/net/stat/nf_conntrack are named in its first line, their values are hexadecimal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.doctor.finding import fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.doctor.finding import Finding
    from egressproxy.doctor.machine import Machine
    from egressproxy.doctor.plan import Plan

ENTRIES_PER_FLOW: Final = 2
MIN_ENTRIES: Final = 131_072
"""Room for what pass 1 forwards beside the proxy's flows."""
MIN_PORTS: Final = 25_000
_WARN_AT, _FAIL_AT = 0.7, 0.95
_NETFILTER: Final = "net.netfilter.nf_conntrack_"
_LOSSES: Final = ("drop", "early_drop", "insert_failed")


def check_conntrack(machine: Machine, plan: Plan) -> Iterator[Finding]:
    """Size, fill and losses; nothing to see until the first rule has loaded conntrack."""
    most, count = (machine.sysctl(_NETFILTER + name) for name in ("max", "count"))
    if most is None or count is None:
        yield ok("conntrack", "not in use yet: the first rule loads it")
        return
    wanted = max(MIN_ENTRIES, ENTRIES_PER_FLOW * plan.settings.max_flows)
    seen = f"{count:,} of {most:,} entries"
    raise_it = f"sysctl -w net.netfilter.nf_conntrack_max={max(2 * most, wanted)}"
    if count >= _FAIL_AT * most:
        yield fail("conntrack", seen, "the table is full: new connections are dropped", raise_it)
    elif count >= _WARN_AT * most:
        yield warn("conntrack", seen, "a full table drops new connections", raise_it)
    elif most < wanted:
        why = f"max_flows {plan.settings.max_flows:,} and pass 1 may want {wanted:,}"
        yield warn("conntrack", seen, why, raise_it)
    else:
        yield ok("conntrack", seen)
    yield from _losses(machine, raise_it)
    yield from _timeout(machine, plan)


def _losses(machine: Machine, raise_it: str) -> Iterator[Finding]:
    rows = [line.split() for line in machine.text("proc/net/stat/nf_conntrack").splitlines()]
    if len(rows) < 2:
        return
    lost = {}
    for column, name in enumerate(rows[0]):
        if name in _LOSSES:
            lost[name] = sum(_hexadecimal(row[column]) for row in rows[1:] if column < len(row))
    if any(lost.values()):
        seen = ", ".join(f"{name} {count:,}" for name, count in lost.items() if count)
        yield warn(
            "conntrack losses", seen, "packets were dropped since the machine started", raise_it
        )
    else:
        yield ok("conntrack losses", "none")


def _timeout(machine: Machine, plan: Plan) -> Iterator[Finding]:
    established_s = machine.sysctl(_NETFILTER + "tcp_timeout_established")
    keepalive_s = plan.settings.keepalive_s
    if established_s is not None and established_s <= 2 * keepalive_s:
        yield fail(
            "conntrack timeout",
            f"established connections are forgotten after {established_s:,} s",
            f"our keepalive comes every {keepalive_s} s: open flows would lose their entry",
            f"sysctl -w {_NETFILTER}tcp_timeout_established=432000",
        )


def check_source_ports(machine: Machine, plan: Plan) -> Iterator[Finding]:
    """Ports for our own connections: as many at once to one address and port as there are."""
    span = machine.numbers("proc/sys/net/ipv4/ip_local_port_range")
    if len(span) != 2:
        return
    first, last = span
    ports = last - first + 1
    inside = sorted(
        {str(each.endpoint) for each in plan.listeners if first <= each.endpoint.port <= last}
    )
    seen = f"{first}-{last} ({ports:,})"
    widen = 'sysctl -w net.ipv4.ip_local_port_range="16384 65535"'
    if ports < MIN_PORTS:
        why = "each connection to the same server wants a port of its own"
        yield warn("source ports", seen, why, widen)
    elif inside and not machine.text("proc/sys/net/ipv4/ip_local_reserved_ports"):
        yield warn(
            "source ports",
            f"{seen}, with our listener {inside[0]} among them",
            "a connection of any program may have the port when the service starts",
            f"sysctl -w net.ipv4.ip_local_reserved_ports={inside[0].rpartition(':')[2]}",
        )
    else:
        yield ok("source ports", seen)
    yield _in_use(machine, ports)


def _in_use(machine: Machine, ports: int) -> Finding:
    """/proc/net/sockstat: ``TCP: inuse 5 orphan 0 tw 12 alloc 9 mem 3``.

    What Azure's own SNAT has left in front of us is not to be seen from here.
    """
    words = next(
        (line.split() for line in machine.text("proc/net/sockstat").splitlines() if "TCP:" in line),
        [],
    )
    facts = dict(zip(words[1::2], words[2::2], strict=False))
    used = sum(int(facts[name]) for name in ("inuse", "tw") if facts.get(name, "").isdigit())
    seen = f"{used:,} TCP sockets of this machine, TIME_WAIT included"
    if used < _WARN_AT * ports:
        return ok("SNAT ports", seen)
    return warn(
        "SNAT ports",
        seen,
        "to one server there are no more than the source ports, and Azure's SNAT may give fewer",
        "a NAT gateway with more addresses (64,512 ports each), or a public IP on this machine",
    )


def _hexadecimal(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0

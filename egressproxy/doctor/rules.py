"""nftables: the program, what the kernel's modules can, our table and guard, and others' chains."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from egressproxy.doctor.finding import fail, ok, warn
from egressproxy.errors import KernelError
from egressproxy.kernel.nft_apply import FAMILY, TABLE, Nft
from egressproxy.kernel.routing import routing_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.doctor.finding import Finding
    from egressproxy.doctor.machine import Machine
    from egressproxy.kernel.routing import RoutingState

_CHAIN: Final = "add table inet {table}\nadd chain inet {table} c {{ type {type}; }}\n"
_RULE: Final = "add rule inet {table} c {rule}\n"
_PROBE_TABLE: Final = "egressproxy_doctor"
_PREROUTING: Final = "filter hook prerouting priority mangle"
_FEATURES: Final = {
    "redirect": ("nat hook prerouting priority dstnat", "meta l4proto tcp redirect to :15001"),
    "masquerade": ("nat hook postrouting priority srcnat", "masquerade"),
    "TPROXY": (_PREROUTING, "meta nfproto ipv4 meta l4proto tcp tproxy ip to :15002"),
    "socket match": (_PREROUTING, "socket transparent 1 accept"),
    "NFLOG": ("filter hook forward priority filter", 'log prefix "deny" group 100 snaplen 160'),
    "limits": ("filter hook forward priority filter", "limit rate 1000/second accept"),
    "reject": ("filter hook forward priority filter", "reject with icmpx port-unreachable"),
    "own addresses": (_PREROUTING, "fib daddr type local accept"),
    "conntrack": ("filter hook forward priority filter", "ct status dnat ct mark 1 accept"),
    "MSS clamp": (
        "filter hook forward priority filter",
        "tcp flags syn tcp option maxseg size set rt mtu",
    ),
}
"""What our table uses, each with a chain where it may stand."""
_UP: Final = "egressproxy up --config /etc/egressproxy/config.yaml"


@dataclass(frozen=True, slots=True)
class KernelRules:
    """What the kernel has of ours; an ``error`` where it could not be asked.

    ``digest`` and ``options`` are what the table was made of, ``proxy_ports`` where it takes
    application flows.
    """

    is_there: bool = False
    digest: str = ""
    options: str = ""
    proxy_ports: frozenset[int] = frozenset()
    routing: RoutingState | None = None
    error: KernelError | None = None
    version: str = ""
    lacking: dict[str, KernelError] = field(default_factory=dict)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is forwarded that no table judged."""
        return self.routing is not None and self.routing.guard and not self.routing.ahead


def read_rules(nft: Nft) -> KernelRules:
    """Ask nft and the kernel; each feature is checked, none is applied."""
    try:
        version = ".".join(map(str, nft.version()))
        table = nft.table_state()
        lacking = dict(_lacking(nft))
        routing = routing_state()
    except KernelError as error:
        return KernelRules(error=error)
    found = KernelRules(routing=routing, version=version, lacking=lacking)
    if table is None:
        return found
    return replace(
        found,
        is_there=True,
        digest=table.digest,
        options=table.options,
        proxy_ports=table.proxy_ports,
    )


def check_rules(
    machine: Machine, rules: KernelRules, digest: str = "", options: str = ""
) -> Iterator[Finding]:
    """The program first: without it there is nothing to ask.

    ``digest`` is that of the policy in the files, ``options`` that of the configuration's; empty
    where none was given.
    """
    if rules.error is not None:
        what = rules.error.message
        yield fail(
            "nft", what, "the kernel's rules are written by nft", rules.error.hint or "nft -v"
        )
        return
    yield ok("nft", f"nftables {rules.version}")
    if rules.lacking:
        for feature, error in rules.lacking.items():
            why = "our table uses it: without it nothing is applied, and nothing forwarded"
            yield fail(f"nft {feature}", error.message, why, error.hint or "modprobe nf_tables")
    else:
        yield ok("kernel modules", ", ".join(_FEATURES))
    yield _table(rules, digest)
    if options and rules.options and options != rules.options:
        yield warn(
            "table's options",
            "the table was made with others (clients, management, …) than the configuration has",
            "what was edited there is not in force: a reload reads the policy alone",
            "systemctl restart egressproxy",
        )
    yield from _guard(rules)
    yield from _others(machine)


def _lacking(nft: Nft) -> Iterator[tuple[str, KernelError]]:
    for feature, (type_, rule) in _FEATURES.items():
        chain = _CHAIN.format(table=_PROBE_TABLE, type=type_)
        try:
            nft.check(chain + _RULE.format(table=_PROBE_TABLE, rule=rule))
        except KernelError as error:
            yield feature, error


def _table(rules: KernelRules, digest: str) -> Finding:
    name = f"table {FAMILY} {TABLE}"
    if rules.is_there and digest and rules.digest and digest != rules.digest:
        seen = f"in the kernel, policy {rules.digest[:12]}; the files say {digest[:12]}"
        why = "what was edited last is not in force"
        return warn(name, seen, why, "systemctl reload egressproxy; journalctl -u egressproxy")
    if rules.is_there:
        return ok(name, f"in the kernel, policy {rules.digest[:12] or 'not named'}")
    return warn(name, "not in the kernel", "nothing is judged by this machine's kernel", _UP)


def _guard(rules: KernelRules) -> Iterator[Finding]:
    if rules.routing is None or not (rules.is_there or rules.routing.guard):
        return
    if not rules.routing.guard:
        why = "packets are forwarded unjudged if somebody flushes the table"
        yield fail("routing guard", "not in place", why, f"{_UP}   # ip rule shows it")
    elif rules.routing.ahead:
        why = "it routes packets before the guard sees them"
        yield warn("routing guard", f"ahead of it: {rules.routing.ahead[0]}", why, "ip rule del …")
    else:
        yield ok("routing guard", "what was not judged is not forwarded")


def _others(machine: Machine) -> Iterator[Finding]:
    """Other tables' chains that drop what is forwarded: an accept of ours does not outvote them."""
    chains = _chains(machine.run(("nft", "--json", "list", "chains")) or "")
    dropping = [
        f"{chain.get('family')} {chain.get('table')} {chain.get('name')}"
        for chain in chains
        if chain.get("hook") in ("forward", "input")
        and chain.get("policy") == "drop"
        and (chain.get("family"), chain.get("table")) != (FAMILY, TABLE)
    ]
    if dropping:
        yield warn(
            "other firewalls",
            f"{', '.join(dropping[:3])} drop by default",
            "a packet has to pass every table: Docker, ufw and firewalld drop what we allow",
            f"nft list chain {dropping[0]}   # accept our traffic there, or remove that firewall",
        )
    else:
        yield ok("other firewalls", "none drops by default")


def _chains(text: str) -> list[dict[str, Any]]:
    try:
        listed = json.loads(text)["nftables"]
        return [each["chain"] for each in listed if isinstance(each.get("chain"), dict)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []

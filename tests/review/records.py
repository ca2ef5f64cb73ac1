"""A seeded generator of the records of an AKS cluster's days, from ten to ten million.

Twenty nodes do what nodes do; pods have their own ideas; one is taken over. The mix is that of a
cluster whose policy lacks a requirement: mostly allows, denies of a few hundred names, some names
that never come twice, a few flows without any.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from egressproxy.observe.record import FlowRecord, NameSource, Plane
from egressproxy.policy.verdict import Action, Pass, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

START: Final = 1_790_035_200.0
"""2026-09-22 00:00:00 UTC, a Tuesday."""
DAY_S: Final = 86_400.0
POLICY: Final = "5eed" * 16
NODES: Final = tuple(f"10.240.0.{host}" for host in range(4, 24))
PODS: Final = tuple(f"10.244.{node}.{host}" for node in range(20) for host in range(10, 22))
INTRUDER: Final = "10.244.7.66"
"""The pod that tries to get data out."""

ALLOW: Final = (Action.ALLOW, Reason.RULE, Pass.APPLICATION)
DENY: Final = (Action.DENY, Reason.DEFAULT_DENY, Pass.NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of flow; ``weight`` is its share of all, ``name`` makes one (``None``: no name)."""

    weight: float
    outcome: tuple[Action, Reason, Pass]
    name: Callable[[random.Random], str | None]
    sources: tuple[str, ...] = NODES
    rule: str | None = None
    port: int = 443
    protocol: str = "tls"
    plane: Plane = Plane.TRANSPARENT
    note: str = ""
    alpn: tuple[str, ...] = ("h2", "http/1.1")
    would_deny: bool = False
    dst: str = "20.60.1.{}"


def _always(name: str | None) -> Callable[[random.Random], str | None]:
    return lambda _: name


def _one_of(*names: str) -> Callable[[random.Random], str | None]:
    return lambda dice: names[int(dice.random() * len(names))]


def _numbered(form: str, count: int) -> Callable[[random.Random], str | None]:
    return lambda dice: form.format(int(dice.random() * count))


KINDS: Final = (
    Kind(
        weight=30,
        outcome=ALLOW,
        name=_one_of("mcr.microsoft.com", "westeurope.data.mcr.microsoft.com"),
        rule="aks/core#mcr",
    ),
    Kind(
        weight=20,
        outcome=ALLOW,
        name=_one_of("management.azure.com", "login.microsoftonline.com"),
        rule="aks/core#management",
    ),
    Kind(
        weight=10,
        outcome=ALLOW,
        name=_always("lab-dns-1a2b3c4d.hcp.westeurope.azmk8s.io"),
        rule="aks/core#api-server",
        alpn=("konnectivity", "h2"),
    ),
    Kind(
        weight=8,
        outcome=ALLOW,
        name=_numbered("api{}.partner.example", 40),
        sources=PODS,
        rule="partner",
    ),
    Kind(
        weight=6,
        outcome=ALLOW,
        name=_always("archive.ubuntu.com"),
        rule="aks/node-updates#ubuntu",
        protocol="http",
        port=80,
        alpn=(),
    ),
    Kind(
        weight=6,
        outcome=DENY,
        name=_one_of("dc.services.visualstudio.com", "westeurope.monitoring.azure.com"),
        note="optional: aks/azure-monitor",
    ),
    Kind(
        weight=6,
        outcome=DENY,
        name=_numbered("md-hdd-{:04x}.z1.blob.storage.azure.net", 60),
        note="harmless: disk metadata",
    ),
    Kind(weight=4, outcome=DENY, name=_numbered("telemetry{}.vendor.example", 300), sources=PODS),
    Kind(weight=3, outcome=DENY, name=_one_of("pypi.example", "npm.example"), sources=PODS),
    Kind(weight=2, outcome=DENY, name=_always("mcr.mircosoft.com"), sources=PODS[:3]),
    Kind(
        weight=1.5,
        outcome=(Action.DENY, Reason.NO_SNI, Pass.NONE),
        name=_always(None),
        sources=PODS[:20],
        alpn=(),
        dst="203.0.113.{}",
    ),
    Kind(
        weight=1,
        outcome=(Action.DENY, Reason.DEFAULT_DENY, Pass.NONE),
        name=_always(None),
        sources=PODS,
        protocol="udp",
        port=123,
        plane=Plane.NETWORK,
        alpn=(),
        dst="198.51.100.{}",
    ),
    Kind(
        weight=1,
        outcome=(Action.DENY, Reason.EXPIRED_RULE, Pass.NONE),
        name=_always("legacy.partner.example"),
        sources=PODS[:8],
        rule="legacy",
    ),
    Kind(
        weight=1,
        outcome=(Action.ALLOW, Reason.DEFAULT_DENY, Pass.NONE),
        name=_always("audited.example"),
        sources=PODS[:5],
        would_deny=True,
    ),
    Kind(
        weight=0.5,
        outcome=DENY,
        name=lambda dice: f"{dice.getrandbits(96):024x}.t.exfil.example",
        sources=(INTRUDER,),
        alpn=(),
    ),
)


def flow(**fields: Any) -> FlowRecord:
    """A denied flow at ``START``, with any field set otherwise."""
    denied = {
        "time": START,
        "flow_id": "0-1",
        "src_port": 50123,
        "action": Action.DENY,
        "reason": Reason.DEFAULT_DENY,
        "plane": Plane.TRANSPARENT,
        "protocol": "tls",
        "src_ip": "10.240.0.4",
        "dst_port": 443,
        "dst_ip": "20.1.2.3",
        "name": "evil.example",
        "name_source": NameSource.SNI,
        "close_reason": "refused",
    }
    return FlowRecord(**{**denied, **fields})


def traffic(
    count: int, *, seed: int = 1, start: float = START, span_s: float = DAY_S
) -> Iterator[FlowRecord]:
    """``count`` records in the order of their time, evenly over a span; the same for a seed."""
    dice = random.Random(seed)
    rolled = dice.random
    sums = list(accumulate(kind.weight for kind in KINDS))
    step = span_s / max(count, 1)
    thousandth = 1000
    for first in range(0, count, thousandth):
        batch = dice.choices(KINDS, cum_weights=sums, k=min(thousandth, count - first))
        for number, kind in enumerate(batch, start=first):
            # As the log writes it: to the millisecond.
            at = int((start + number * step) * 1000) / 1000
            name = kind.name(dice)
            yield _flow(kind, at, number, name, int(rolled() * 65536))


def _flow(kind: Kind, at: float, number: int, name: str | None, roll: int) -> FlowRecord:
    action, reason, decided_by = kind.outcome
    is_allow = action is Action.ALLOW
    dst = kind.dst.format(roll % 8)
    is_network = kind.plane is Plane.NETWORK
    is_open = is_allow and kind.would_deny
    return FlowRecord(
        time=at,
        flow_id=f"0-19f3a2b4c00-{number:x}",
        src_port=1024 + roll % 60000,
        action=action,
        reason=reason,
        plane=kind.plane,
        protocol=kind.protocol,
        src_ip=kind.sources[roll % len(kind.sources)],
        dst_port=kind.port,
        rule=kind.rule,
        decided_by=decided_by,
        would_deny=kind.would_deny,
        source_group="lab",
        dst_ip=dst,
        name=name,
        name_source=_name_source(kind, name),
        alpn=kind.alpn,
        tls_versions=("1.3", "1.2") if kind.protocol == "tls" else (),
        dialled_ip=dst if is_allow else None,
        destination_match="yes" if is_allow else "unknown",
        close_reason="open" if is_open else "client_closed" if is_allow else "refused",
        policy=POLICY,
        note=kind.note,
        bytes_up=0 if is_open or not is_allow else 500 + roll % 4000,
        bytes_down=0 if is_open or not is_allow else 3000 + roll * 7,
        requests=1 if kind.protocol == "http" else 0,
        duration_s=0.0 if is_network else roll / 65536,
    )


def _name_source(kind: Kind, name: str | None) -> NameSource:
    if name is None:
        return NameSource.NONE
    return NameSource.HOST if kind.protocol == "http" else NameSource.SNI

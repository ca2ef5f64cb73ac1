"""A store with three days of a cluster's records, and the plain answers to hold queries to."""

from __future__ import annotations

import math
from collections import Counter
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from egressproxy.observe.record import FlowRecord
from egressproxy.review.bounds import Bounds
from egressproxy.review.model import Group
from egressproxy.review.queries import NO_RULE, NO_TARGET
from egressproxy.review.spans import EXACT_S
from egressproxy.review.writer import Writer
from tests.review.records import DAY_S, START, traffic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from egressproxy.review.model import Filter
    from egressproxy.review.store import Store

HOUR_S: Final = 3600.0
SPAN_S: Final = 3 * DAY_S
END: Final = START + SPAN_S
GATEWAYS: Final = ("hub-1", "hub-2")
Known = tuple[str, FlowRecord]


def known_records(count: int) -> list[Known]:
    """Records with the gateway that wrote them, in order of time."""
    gateways = (GATEWAYS[number % 7 == 0] for number in range(count))
    return list(zip(gateways, traffic(count, span_s=SPAN_S), strict=True))


def fill(store: Store, known: Iterable[Known]) -> None:
    """Store them all, without bounds."""
    wide = Bounds(max_age_days=36_600, subjects_per_source_hour=1 << 20)
    for gateway in GATEWAYS:
        writer = Writer(store, gateway=gateway, bounds=wide)
        writer.add([record for name, record in known if name == gateway])


def meant(known: Iterable[Known], where: Filter) -> Iterator[Known]:
    """What a filter means, told from the records alone."""
    since, until = where.since or 0.0, math.inf if where.until is None else where.until
    if until - since > EXACT_S:
        since = since // HOUR_S * HOUR_S
        until = -(-until // HOUR_S) * HOUR_S if until < math.inf else until
    for gateway, record in known:
        if since <= record.time < until and _is_meant(gateway, record, where):
            yield gateway, record


def _is_meant(gateway: str, record: FlowRecord, where: Filter) -> bool:
    is_denied = record.action == "deny" or record.would_deny
    target = record.name or record.dst_ip or ""
    return all(
        (
            where.is_denied in (None, is_denied),
            _is_from(record, where),
            not where.names or any(fnmatchcase(target, name) for name in where.names),
            not where.rules or any(fnmatchcase(record.rule or "", rule) for rule in where.rules),
            not where.reasons or record.reason in where.reasons,
            not where.ports or record.dst_port in where.ports,
            not where.planes or record.plane in where.planes,
            not where.gateways or gateway in where.gateways,
        )
    )


def _is_from(record: FlowRecord, where: Filter) -> bool:
    if not where.sources and not where.source_groups:
        return True
    is_inside = any(ip_address(record.src_ip) in network for network in where.sources)
    return is_inside or record.source_group in where.source_groups


def key_of(gateway: str, record: FlowRecord, by: Group) -> str:
    """What a record's line is called."""
    keys = {
        Group.NAME: record.name or record.dst_ip or NO_TARGET,
        Group.SOURCE: record.src_ip,
        Group.REASON: str(record.reason),
        Group.RULE: record.rule or NO_RULE,
        Group.PORT: f"{record.protocol}:{record.dst_port}",
        Group.GATEWAY: gateway,
    }
    return keys[by]


def counted(known: Iterable[Known], by: Group) -> Counter[str]:
    """Flows by key."""
    counts: Counter[str] = Counter()
    for gateway, record in known:
        counts[key_of(gateway, record, by)] += record.count
    return counts

"""``RuleHistory``: what a store can tell of the use of rules, and how much there is to tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import BigInteger, cast, func, select

from egressproxy.review.model import Filter, Group
from egressproxy.review.queries import NO_RULE, subjects, top
from egressproxy.review.schema import daily, day_of, recording, reload, rule_hits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from egressproxy.review.model import SubjectCount
    from egressproxy.review.store import Store

ALL: Final = "all"
NONE: Final = "none"
_APPLIED: Final = "applied"


@dataclass(frozen=True, slots=True)
class Use:
    """``flows`` recorded with a rule's id, or ``packets`` that the kernel counted for it."""

    flows: int = 0
    packets: int = 0
    last_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleHistory:
    """Everything since a moment, POSIX seconds.

    ``first_at`` is the oldest record that there is, ``None`` in an empty store. ``by_rule`` has all
    that was recorded by rule id; ``counts`` the subjects, the commonest, for a policy of today to
    judge. ``allows`` are the ways in which the gateways recorded allows in that time (``all``,
    ``none``, ``1/100``); empty where no gateway said, as in logs. ``changed_at`` is the last reload
    that changed a policy in that time.
    """

    since: float
    first_at: float | None
    by_rule: Mapping[str, Use]
    counts: tuple[SubjectCount, ...]
    allows: frozenset[str]
    changed_at: float | None = None


def rule_history(store: Store, *, since: float) -> RuleHistory:
    """Read it; some seconds of a large store.

    Raises:
        StoreError: it cannot be read.
    """
    where = Filter(since=since, is_denied=None)
    counts = tuple(subjects(store, where))
    uses = {
        each.key: Use(each.count, 0, each.last_at)
        for each in top(store, where, Group.RULE, limit=0)
        if each.key != NO_RULE
    }
    with store.connect() as connection:
        _add_packets(connection, since, uses)
        return RuleHistory(
            since=since,
            first_at=connection.scalar(select(func.min(daily.c.first_at))),
            by_rule=uses,
            counts=counts,
            allows=_allows(connection, since),
            changed_at=_changed_at(connection, since),
        )


def _add_packets(connection: Connection, since: float, uses: dict[str, Use]) -> None:
    found = (
        select(
            rule_hits.c.rule,
            cast(func.sum(rule_hits.c.packets), BigInteger),
            func.max(rule_hits.c.bucket),
        )
        .where(rule_hits.c.bucket >= day_of(since))
        .group_by(rule_hits.c.rule)
    )
    for rule, packets, last_day in connection.execute(found):
        use = uses.get(rule, Use())
        last_at = max(float(last_day), use.last_at or 0.0)
        uses[rule] = Use(use.flows, packets, last_at)


def _allows(connection: Connection, since: float) -> frozenset[str]:
    """What each gateway said last before the span, and all that was said in it."""
    said: dict[str, set[str]] = {}
    found = select(recording.c.gateway, recording.c.since, recording.c.allows)
    for gateway, at, allows in connection.execute(found.order_by(recording.c.since)):
        if at <= since:
            said[gateway] = {allows}
        else:
            said.setdefault(gateway, set()).add(allows)
    return frozenset(allows for each in said.values() for allows in each)


def _changed_at(connection: Connection, since: float) -> float | None:
    row = reload.c
    found = select(func.max(row.at)).where(row.at >= since).where(row.outcome == _APPLIED)
    last: float | None = connection.scalar(found.where(row.digest != row.previous))
    return last

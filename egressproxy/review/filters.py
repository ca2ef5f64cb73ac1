"""A ``Filter`` as conditions on the tables of the store, the same for SQLite and PostgreSQL.

Classes are no condition here: what class a subject has is not in the store.
"""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, func, not_, or_

from egressproxy.policy.verdict import Action
from egressproxy.review.schema import key_span, subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Column, ColumnElement

    from egressproxy.policy.networks import Network
    from egressproxy.review.model import Filter

_IPV4: Final = IPv6Network("::ffff:0:0/96")
_ESCAPE: Final = "\\"
_of = subject.c


def conditions(where: Filter) -> list[ColumnElement[bool]]:
    """What a row of ``subject`` must meet; empty where everything is meant."""
    return list(_conditions(where))


def _conditions(where: Filter) -> Iterator[ColumnElement[bool]]:
    denied = or_(_of.action == Action.DENY.value, _of.would_deny)
    if where.is_denied is not None:
        yield denied if where.is_denied else not_(denied)
    if where.sources or where.source_groups:
        yield or_(*map(_inside, where.sources), _of.source_group.in_(where.source_groups))
    if where.names:
        nameless = and_(_of.name.is_(None), _like(_of.dst_ip, where.names))
        yield or_(_like(_of.name, where.names), nameless)
    if where.rules:
        yield _like(_of.rule, where.rules)
    if where.reasons:
        yield _of.reason.in_(where.reasons)
    if where.ports:
        yield _of.dst_port.in_(where.ports)
    if where.planes:
        yield _of.plane.in_(where.planes)
    if where.gateways:
        yield _of.gateway.in_(where.gateways)


def _inside(network: Network) -> ColumnElement[bool]:
    """Clients of a range; a large IPv6 one has room for all IPv4 keys, and does not mean them."""
    inside = _of.src_key.between(*key_span(network))
    if network.version == 6 and network.supernet_of(_IPV4):
        return and_(inside, not_(_of.src_key.between(*key_span(_IPV4))))
    return inside


def _like(column: Column[str], texts: Iterable[str]) -> ColumnElement[bool]:
    """One of the texts, whose ``*`` is any text; letters of patterns in either case.

    An overflow has no target: it is found by its source alone.
    """
    texts = tuple(texts)
    exact = [text for text in texts if "*" not in text]
    patterns = [_pattern(text) for text in texts if "*" in text]
    lower = func.lower(column)
    return or_(column.in_(exact), *(lower.like(each, escape=_ESCAPE) for each in patterns))


def _pattern(text: str) -> str:
    for sign in (_ESCAPE, "%", "_"):
        text = text.replace(sign, _ESCAPE + sign)
    return text.lower().replace("*", "%")

"""``SubjectIds``: from a record to the number of its subject, new subjects within the budget.

Two records have one subject when they agree in all of ``_FIELDS`` and, where there is no name, in
the destination address. The store tells subjects apart by a digest of that; numbers that were met
lately are remembered.
"""

from __future__ import annotations

import hashlib
import json
from ipaddress import ip_address
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, insert, select, update

from egressproxy.observe.record import FlowRecord, NameSource, Plane
from egressproxy.review import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from egressproxy.review.bounds import Budget

    Key = tuple[Any, ...]

MAX_REMEMBERED: Final = 100_000
_MAPPED: Final = b"\0" * 10 + b"\xff\xff"
_LONG_AGO: Final = 0  # the next record says where the name leads
_CHUNK: Final = 500  # values of one IN list
_DIGEST_OCTETS: Final = 16

_FIELDS: Final = (
    "action",
    "reason",
    "rule",
    "decided_by",
    "would_deny",
    "plane",
    "protocol",
    "src_ip",
    "source_group",
    "dst_port",
    "name",
    "name_source",
    "alpn",
    "ech",
    "hello_split",
)
_PLACES: Final = tuple(FlowRecord._fields.index(each) for each in _FIELDS)
_of_named: Final = itemgetter(*_PLACES)
_of_nameless: Final = itemgetter(*_PLACES, FlowRecord._fields.index("dst_ip"))


def key_of(record: FlowRecord) -> Key:
    """What tells its subject from others of the same gateway."""
    key: Key = _of_named(record) if record.name is not None else _of_nameless(record)
    return key


class _Known:
    """A subject's number, and the hour of the record that last said where its name led."""

    __slots__ = ("hour", "number")

    def __init__(self, number: int, hour: int) -> None:
        self.number = number
        self.hour = hour


class SubjectIds:
    """The subjects of one gateway; not for several threads."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway
        self._known: dict[Key, _Known] = {}
        self._pruned = ""
        self._staged: dict[Key, _Known] = {}

    def resolve(
        self, connection: Connection, records: Sequence[FlowRecord], budget: Budget
    ) -> list[tuple[int, bool]]:
        """For each record the number of its subject, and whether that is an overflow subject.

        What is found is remembered only by ``keep``, after the transaction.
        """
        self._staged = {}
        self._forget_if_pruned(connection)
        keys = [key_of(record) for record in records]
        known = self._known
        missing: dict[Key, FlowRecord] = {}
        moved: dict[Key, FlowRecord] = {}
        for key, record in zip(keys, records, strict=True):
            found = known.get(key)
            if found is None:
                missing[key] = record
            elif record.time >= found.hour + schema.HOUR_S:
                moved[key] = record
        stand_ins = self._load(connection, missing, budget) if missing else {}
        self._refresh(connection, moved)
        staged = self._staged
        return [
            (stand_ins[key], True)
            if key in stand_ins
            else ((known.get(key) or staged[key]).number, False)
            for key in keys
        ]

    def keep(self) -> None:
        """The transaction ended well."""
        known = self._known
        known.update(self._staged)
        self._staged = {}
        while len(known) > MAX_REMEMBERED:
            del known[next(iter(known))]

    def _forget_if_pruned(self, connection: Connection) -> None:
        asked = select(schema.meta.c.value).where(schema.meta.c.key == "pruned")
        pruned = connection.execute(asked).scalar_one()
        if pruned != self._pruned:  # by whichever process: numbers may be gone
            self._known.clear()
            self._pruned = pruned

    def _load(
        self, connection: Connection, missing: dict[Key, FlowRecord], budget: Budget
    ) -> dict[Key, int]:
        """Find or make the missing; what the budget refuses is given an overflow subject."""
        digests = {self._digest(key): key for key in missing}
        new = self._find(connection, digests)
        rows, refused = [], []
        for digest in new:
            key = digests[digest]
            record = missing[key]
            hour, is_packet = schema.hour_of(record.time), record.plane is Plane.NETWORK
            if budget.takes_subject(record.src_ip, hour, is_packet=is_packet):
                rows.append(self._row(record, digest, is_overflow=False))
            else:
                refused.append(key)
        self._make(connection, rows, digests, missing)
        return self._overflow(connection, {key: missing[key] for key in refused}, budget)

    def _overflow(
        self, connection: Connection, refused: dict[Key, FlowRecord], budget: Budget
    ) -> dict[Key, int]:
        """A subject for each source; of very many sources, for each of their networks."""

        def takes(record: FlowRecord) -> bool:
            return budget.takes_overflow(schema.hour_of(record.time))

        joined = {key: _joined(record) for key, record in refused.items()}
        numbers = self._stand_in(connection, joined, takes)
        rest = {key: _masked(joined[key]) for key in joined if key not in numbers}
        return numbers | self._stand_in(connection, rest, lambda _: True)

    def _stand_in(
        self,
        connection: Connection,
        joined: dict[Key, FlowRecord],
        takes: Callable[[FlowRecord], bool],
    ) -> dict[Key, int]:
        # A key of one more field than others have, so that the digest is never that of another.
        own = {key: (*key_of(record), "overflow") for key, record in joined.items()}
        wanted = {own[key]: joined[key] for key in joined if own[key] not in self._known}
        digests = {self._digest(key): key for key in wanted}
        rows = []
        for digest in self._find(connection, digests):
            record = wanted[digests[digest]]
            if takes(record):
                rows.append(self._row(record, digest, is_overflow=True))
        self._make(connection, rows, digests, wanted)
        numbers = {}
        for key, stands_for in own.items():
            found = self._known.get(stands_for) or self._staged.get(stands_for)
            if found is not None:
                numbers[key] = found.number
        return numbers

    def _find(self, connection: Connection, digests: dict[bytes, Key]) -> list[bytes]:
        """Stage those that the store has; the others are given back, in their order."""
        rest = dict.fromkeys(digests)
        wanted = list(digests)
        for start in range(0, len(wanted), _CHUNK):
            found = connection.execute(_ask, {"digests": wanted[start : start + _CHUNK]})
            for number, digest in found:
                del rest[digest]
                self._staged[digests[digest]] = _Known(number, _LONG_AGO)
        return list(rest)

    def _make(
        self,
        connection: Connection,
        rows: list[dict[str, Any]],
        digests: dict[bytes, Key],
        records: dict[Key, FlowRecord],
    ) -> None:
        if not rows:
            return
        for number, digest in connection.execute(_make, rows):
            key = digests[digest]
            self._staged[key] = _Known(number, schema.hour_of(records[key].time))

    def _refresh(self, connection: Connection, moved: dict[Key, FlowRecord]) -> None:
        """Say once an hour where a name led last and what the catalog says of it."""
        if not moved:
            return
        rows = []
        for key, record in moved.items():
            number = self._known[key].number
            rows.append(
                {
                    "number": number,
                    "dst_ip": schema.storable_or_none(record.dst_ip),
                    "note": schema.storable(record.note),
                }
            )
            self._staged[key] = _Known(number, schema.hour_of(record.time))
        connection.execute(_move, rows)

    def _digest(self, key: Key) -> bytes:
        text = json.dumps([self._gateway, *key])
        return hashlib.blake2b(text.encode(), digest_size=_DIGEST_OCTETS).digest()

    def _row(self, r: FlowRecord, digest: bytes, *, is_overflow: bool) -> dict[str, Any]:
        return {
            "digest": digest,
            "gateway": self._gateway,
            "action": str(r.action),
            "reason": str(r.reason),
            "rule": schema.storable_or_none(r.rule),
            "decided_by": str(r.decided_by),
            "would_deny": r.would_deny,
            "plane": str(r.plane),
            "protocol": schema.storable(r.protocol),
            "src_ip": schema.storable(r.src_ip),
            "src_key": schema.address_key(r.src_ip),
            "source_group": schema.storable_or_none(r.source_group),
            "dst_ip": schema.storable_or_none(r.dst_ip),
            "dst_port": r.dst_port,
            "name": schema.storable_or_none(r.name),
            "name_source": str(r.name_source),
            "note": schema.storable(r.note),
            "alpn": schema.packed_texts(r.alpn),
            "ech": r.ech,
            "hello_split": r.hello_split,
            "is_overflow": is_overflow,
        }


def _joined(record: FlowRecord) -> FlowRecord:
    """What the flows of one source beyond its budget still have in common."""
    return record._replace(
        dst_ip=None,
        dst_port=0,
        name=None,
        name_source=NameSource.NONE,
        alpn=(),
        ech=False,
        hello_split=False,
        note="",
    )


def _masked(record: FlowRecord) -> FlowRecord:
    """The same of all sources of one network, the address of which stands for them."""
    key = schema.address_key(record.src_ip)
    kept = "" if key is None else _network_of(key)
    return record._replace(src_ip=kept, source_group=None, rule=None)


def _network_of(key: bytes) -> str:
    is_ipv4 = key[:12] == _MAPPED
    packed = key[12:14] + bytes(2) if is_ipv4 else key[:8] + bytes(8)
    return str(ip_address(packed))


_ask: Final = select(schema.subject.c.id, schema.subject.c.digest).where(
    schema.subject.c.digest.in_(bindparam("digests", expanding=True))
)
_make: Final = insert(schema.subject).returning(schema.subject.c.id, schema.subject.c.digest)
_move: Final = (
    update(schema.subject)
    .where(schema.subject.c.id == bindparam("number"))
    .values(dst_ip=bindparam("dst_ip"), note=bindparam("note"))
)

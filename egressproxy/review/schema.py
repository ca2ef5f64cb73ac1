"""The tables of the store: one schema for SQLite and PostgreSQL, and how values are kept in them.

Times are POSIX seconds; a bucket is the one at which its hour or day (UTC) begins. Texts a peer
chose are kept as they are but for NUL, which PostgreSQL's text cannot hold. Lists of texts are
JSON. ``src_key`` makes ranges of addresses ranges of octets, in either database.
"""

from __future__ import annotations

import json
from functools import lru_cache
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

if TYPE_CHECKING:
    from egressproxy.policy.networks import Network

VERSION: Final = 1
"""Of the schema; in ``meta`` under ``schema_version``."""
RECORDS_CUT: Final = "records_cut"
"""In ``meta``, once raw records were deleted for want of room: the time of the latest of them."""
HOUR_S: Final = 3600
DAY_S: Final = 86400

# SQLite numbers rows by itself only where the type is INTEGER, which has 64 bits there.
_NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")
# sqlite_autoincrement: a number that was deleted is never given again.

metadata: Final = MetaData()

meta: Final = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""``schema_version``; ``pruned``, a number that grows when subjects were deleted."""

subject: Final = Table(
    "subject",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("digest", LargeBinary(16), nullable=False, unique=True),
    Column("gateway", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("rule", Text),
    Column("decided_by", Text, nullable=False),
    Column("would_deny", Boolean, nullable=False),
    Column("plane", Text, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("src_ip", Text, nullable=False),
    Column("src_key", LargeBinary(16)),
    Column("source_group", Text),
    Column("dst_ip", Text),
    Column("dst_port", Integer, nullable=False),
    Column("name", Text),
    Column("name_source", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("alpn", Text, nullable=False),
    Column("ech", Boolean, nullable=False),
    Column("hello_split", Boolean, nullable=False),
    Column("is_overflow", Boolean, nullable=False),
    Index("subject_name", "name"),
    Index("subject_src_key", "src_key"),
    sqlite_autoincrement=True,
)
"""``model.Subject``; ``digest`` is of all that tells subjects apart; ``alpn`` is JSON."""


def _counts(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("bucket", BigInteger, nullable=False),
        Column("subject_id", BigInteger, nullable=False),
        Column("count", BigInteger, nullable=False),
        Column("bytes_up", BigInteger, nullable=False),
        Column("bytes_down", BigInteger, nullable=False),
        Column("first_at", Double, nullable=False),
        Column("last_at", Double, nullable=False),
        PrimaryKeyConstraint("bucket", "subject_id"),
        Index(f"{name}_subject", "subject_id", "bucket"),
        sqlite_with_rowid=False,
    )


hourly: Final = _counts("hourly")
"""Flows of a subject in an hour; ``first_at`` and ``last_at`` of those in it."""
daily: Final = _counts("daily")
"""The same by the day: the sum of its hours."""

record: Final = Table(
    "record",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("at", Double, nullable=False),
    Column("subject_id", BigInteger, nullable=False),
    Column("flow_id", Text, nullable=False),
    Column("src_port", Integer, nullable=False),
    Column("dst_ip", Text),
    Column("dialled_ip", Text),
    Column("tls_versions", Text, nullable=False),
    Column("destination_match", Text, nullable=False),
    Column("bytes_up", BigInteger, nullable=False),
    Column("bytes_down", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("close_reason", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Index("record_at", "at"),
    Index("record_subject", "subject_id", "id"),
    sqlite_autoincrement=True,
)
"""Records as they came, as long as there is room. ``count`` is 0 where another record of the same
flow was counted (what audit let pass has one at its beginning and one at its end); their sum over
a span is that of ``hourly``. ``policy`` is the digest's first 16 digits."""

seen: Final = Table(
    "seen",
    metadata,
    Column("name", Text, primary_key=True),
    Column("first_at", Double, nullable=False),
    Column("last_at", Double, nullable=False),
    sqlite_with_rowid=False,
)
"""Every name ever seen, whatever became of it; ``last_at`` may lag a quarter of an hour."""

reload: Final = Table(
    "reload",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("at", Double, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("report", Text, nullable=False),
    Index("reload_at", "at"),
    sqlite_autoincrement=True,
)
"""Reload history; ``report`` is JSON, ``digest`` the policy in force afterwards."""

rule_hits: Final = Table(
    "rule_hits",
    metadata,
    Column("bucket", BigInteger, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("packets", BigInteger, nullable=False),
    PrimaryKeyConstraint("bucket", "gateway", "rule"),
    sqlite_with_rowid=False,
)
"""What the kernel's counters of network rules grew by, by the day."""

imported: Final = Table(
    "imported",
    metadata,
    Column("head", LargeBinary(16), primary_key=True),
    Column("offset", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    sqlite_with_rowid=False,
)
"""How far files were read that begin with the same octets; offsets are of uncompressed text."""

recording: Final = Table(
    "recording",
    metadata,
    Column("gateway", Text, nullable=False),
    Column("since", Double, nullable=False),
    Column("allows", Text, nullable=False),
    PrimaryKeyConstraint("gateway", "since"),
    sqlite_with_rowid=False,
)
"""From when on which allows were recorded: ``all``, ``none``, ``1/100``."""


def hour_of(at: float) -> int:
    """The bucket of ``hourly``."""
    return int(at // HOUR_S) * HOUR_S


def day_of(at: float) -> int:
    """The bucket of ``daily`` and ``rule_hits``."""
    return int(at // DAY_S) * DAY_S


@lru_cache(maxsize=4096)
def address_key(text: str) -> bytes | None:
    """The 16 octets of an address, IPv4 mapped into IPv6 (RFC 4291 section 2.5.5.2).

    ``None`` where the text is no address.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return b"\0" * 10 + b"\xff\xff" + address.packed
    return address.packed


def key_span(network: Network) -> tuple[bytes, bytes]:
    """The first and last ``address_key`` of a range."""
    first = address_key(str(network.network_address))
    last = address_key(str(network.broadcast_address))
    assert first is not None  # noqa: S101 - an address writes what it can read
    assert last is not None  # noqa: S101 - the same
    return first, last


def storable(text: str) -> str:
    """A text as either database takes it: no NUL, no lone surrogate."""
    if text.isprintable():
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def storable_or_none(text: str | None) -> str | None:
    """The same where there may be none."""
    return None if text is None else storable(text)


@lru_cache(maxsize=512)  # the same few again and again; a hostile one is cut to a KiB or so
def packed_texts(texts: tuple[str, ...]) -> str:
    """Texts as a column keeps them; few kinds of few texts, mostly none."""
    return json.dumps([storable(each) for each in texts]) if texts else ""


def unpacked_texts(packed: str) -> tuple[str, ...]:
    """The inverse of ``packed_texts``."""
    return tuple(json.loads(packed)) if packed else ()

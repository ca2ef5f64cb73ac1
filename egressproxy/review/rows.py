"""Rows of the store as the review's own types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from egressproxy.errors import StoreError
from egressproxy.observe.record import NameSource, Plane
from egressproxy.policy.verdict import Action, Pass, Reason
from egressproxy.review.model import StoredRecord, Subject, SubjectCount
from egressproxy.review.schema import unpacked_texts

if TYPE_CHECKING:
    from sqlalchemy import Row

_ACTIONS: Final = {each.value: each for each in Action}
_REASONS: Final = {each.value: each for each in Reason}
_PASSES: Final = {each.value: each for each in Pass}
_PLANES: Final = {each.value: each for each in Plane}
_SOURCES: Final = {each.value: each for each in NameSource}


def subject_count_of(row: Row[*tuple[Any, ...]]) -> SubjectCount:
    """A row of ``subject`` with its sums, whose labels begin with ``n_``.

    Raises:
        StoreError: a word in it that this version does not know.
    """
    return SubjectCount(
        subject=subject_of(row),
        count=row.n_count,
        first_at=row.n_first_at,
        last_at=row.n_last_at,
        bytes_up=row.n_bytes_up,
        bytes_down=row.n_bytes_down,
    )


def subject_of(row: Row[*tuple[Any, ...]]) -> Subject:
    """A row of ``subject``.

    Raises:
        StoreError: a word in it that this version does not know.
    """
    try:
        return Subject(
            id=row.id,
            gateway=row.gateway,
            action=_ACTIONS[row.action],
            reason=_REASONS[row.reason],
            rule=row.rule,
            decided_by=_PASSES[row.decided_by],
            would_deny=row.would_deny,
            plane=_PLANES[row.plane],
            protocol=row.protocol,
            src_ip=row.src_ip,
            source_group=row.source_group,
            dst_ip=row.dst_ip,
            dst_port=row.dst_port,
            name=row.name,
            name_source=_SOURCES[row.name_source],
            note=row.note,
            alpn=unpacked_texts(row.alpn),
            ech=row.ech,
            hello_split=row.hello_split,
            is_overflow=row.is_overflow,
        )
    except KeyError as error:
        raise StoreError(
            f"the store has {error.args[0]!r}, which this version does not know",
            hint="a younger egressproxy wrote it: review with that one",
        ) from None


def stored_record_of(row: Row[*tuple[Any, ...]]) -> StoredRecord:
    """A row of ``subject`` with its record, whose labels begin with ``r_``.

    Raises:
        StoreError: a word in it that this version does not know.
    """
    return StoredRecord(
        id=row.r_id,
        at=row.r_at,
        subject=subject_of(row),
        flow_id=row.r_flow_id,
        src_port=row.r_src_port,
        dst_ip=row.r_dst_ip,
        dialled_ip=row.r_dialled_ip,
        tls_versions=unpacked_texts(row.r_tls_versions),
        destination_match=row.r_destination_match,
        bytes_up=row.r_bytes_up,
        bytes_down=row.r_bytes_down,
        requests=row.r_requests,
        duration_s=row.r_duration_s,
        close_reason=row.r_close_reason,
        policy=row.r_policy,
        count=row.r_count,
    )

"""Records to export: one of each kind, and any that the planes could write."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

from egressproxy.observe.record import FlowRecord, NameSource, Plane
from egressproxy.policy.verdict import Action, Pass, Reason
from tests.review.records import flow

MOMENT: Final = 1_790_000_000.25
"""2026-09-21T14:13:20.250000Z."""


def record(**fields: Any) -> FlowRecord:
    """A name that nothing matched, with any field set otherwise."""
    return flow(**{"time": MOMENT, "policy": "abc", **fields})


def records() -> st.SearchStrategy[FlowRecord]:
    """Any record, with whatever a peer can put into its texts."""
    texts = st.text(max_size=300)
    counts = st.integers(0, 1 << 50)
    return st.builds(
        FlowRecord,
        time=st.floats(),
        flow_id=texts,
        src_port=st.integers(0, 65535),
        action=st.sampled_from(Action),
        reason=st.sampled_from(Reason),
        plane=st.sampled_from(Plane),
        protocol=st.sampled_from(["tls", "http", "tcp", "udp", "icmp", "icmpv6", "132"]),
        src_ip=texts,
        dst_port=st.integers(0, 65535),
        rule=st.none() | texts,
        decided_by=st.sampled_from(Pass),
        would_deny=st.booleans(),
        source_group=st.none() | texts,
        dst_ip=st.none() | texts,
        name=st.none() | texts,
        name_source=st.sampled_from(NameSource),
        alpn=st.lists(texts, max_size=12).map(tuple),
        ech=st.booleans(),
        destination_match=st.sampled_from(["yes", "no", "unknown"]),
        close_reason=texts,
        note=texts,
        bytes_up=counts,
        bytes_down=counts,
        requests=counts,
        duration_s=st.floats(),
        count=st.integers(1, 1 << 30),
    )

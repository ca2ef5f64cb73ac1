"""``/metrics``: the counters of all workers in the Prometheus text format.

Names follow the Prometheus conventions (base units, ``_total``); labels come from enums only, so
that no peer can add a time series. Every combination that can occur is there from the start with
zero, so that ``rate()`` sees the first one.
"""

from __future__ import annotations

from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from egressproxy.observe.cells import KernelCount, Latency, NameCount, ReviewCount
from egressproxy.observe.record import Plane
from egressproxy.policy.verdict import AUDITABLE, Action, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from egressproxy.observe.counters import Counters, Histogram, Totals

_ERRORS: Final = frozenset(
    {Reason.RESOLVE_FAILED, Reason.DIAL_FAILED, Reason.DIAL_TIMEOUT, Reason.INTERNAL_ERROR}
)
_POSSIBLE: Final = {
    Action.ALLOW: AUDITABLE,  # with its own rule, or softened by audit
    Action.DENY: frozenset(Reason) - _ERRORS,
    Action.ERROR: _ERRORS,
}
_LATENCIES: Final = {
    Latency.DECIDE: ("egressproxy_decide_seconds", "Time of one judgement."),
    Latency.RESOLVE: ("egressproxy_resolve_seconds", "Name to addresses, cache misses only."),
    Latency.DIAL: ("egressproxy_dial_seconds", "First connect to established upstream."),
    Latency.FIRST_BYTE: (
        "egressproxy_first_byte_seconds",
        "Accept of a flow to the first byte from its upstream.",
    ),
}


_KERNEL: Final = {
    KernelCount.PACKETS: (
        "egressproxy_kernel_packets",
        "Packets that the kernel refused or audit let pass, and logged: each became a record.",
    ),
    KernelCount.LOST: (
        "egressproxy_kernel_lost_packets",
        "Packets that the kernel logged and that never came here.",
    ),
    KernelCount.OVERRUNS: (
        "egressproxy_kernel_log_overruns",
        "Times the kernel found the buffer of its log full.",
    ),
    KernelCount.MALFORMED: (
        "egressproxy_kernel_malformed_messages",
        "Messages of the kernel's log that could not be read.",
    ),
    KernelCount.DISAGREEMENTS: (
        "egressproxy_kernel_disagreements",
        "Logged packets on which policy and kernel differ.",
    ),
    KernelCount.REFUSED_ADDRESSES: (
        "egressproxy_name_refused_addresses",
        "Addresses of names that the address guard kept out of a network rule.",
    ),
    KernelCount.SET_ERRORS: (
        "egressproxy_name_set_errors",
        "Failed changes of a name's set in the kernel, each retried.",
    ),
    KernelCount.REPAIRS: (
        "egressproxy_kernel_repairs",
        "Times the kernel's firewall was put back after somebody else changed it.",
    ),
    KernelCount.REVOKED: (
        "egressproxy_kernel_revoked_connections",
        "Connections through the kernel that were ended because a policy no longer allows them.",
    ),
}
_REVIEW: Final = {
    ReviewCount.STORED: (
        "egressproxy_review_stored_records",
        "Flow records written to the review store.",
    ),
    ReviewCount.DROPPED: (
        "egressproxy_review_dropped_records",
        "Flow records that the review store lacks: the recorder was behind, or its store failing.",
    ),
    ReviewCount.OVERFLOWED: (
        "egressproxy_review_overflowed_records",
        "Flow records stored without their name: one source had too many in an hour.",
    ),
    ReviewCount.UNREADABLE: (
        "egressproxy_review_unreadable_lines",
        "Lines that the recorder could not read.",
    ),
    ReviewCount.ERRORS: (
        "egressproxy_review_store_errors",
        "Times the review store failed, each retried.",
    ),
    ReviewCount.NEW_NAMES: (
        "egressproxy_first_seen_names",
        "Names that the review store had never seen before.",
    ),
    ReviewCount.RESTARTS: (
        "egressproxy_recorder_restarts",
        "Recorder processes that ended and were replaced.",
    ),
}
_NAMES: Final = {
    NameCount.UNRESOLVED: (
        "egressproxy_unresolved_names",
        "Names of network rules whose last question brought no address.",
    ),
    NameCount.BOOK_NAMES: ("egressproxy_address_book_names", "Names in the address book."),
    NameCount.BOOK_PAIRS: (
        "egressproxy_address_book_entries",
        "Pairs of name and address in the address book.",
    ),
}


class CountersCollector(Collector):
    """Sums the workers' rows at each scrape."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        """All metric families of one reading."""
        totals = self._counters.totals()
        yield from _flow_families(totals)
        yield from _distributions(totals)
        yield from _resolver_and_log(totals)
        yield from _kernel(totals)
        yield from _review(totals)
        yield from _service(totals)


def _flow_families(totals: Totals) -> Iterator[Metric]:
    flows = CounterMetricFamily(
        "egressproxy_flows",
        "Judged flows (HTTP: judged names of a connection).",
        labels=("plane", "action", "reason"),
    )
    denies = CounterMetricFamily("egressproxy_denies", "Refused flows.", labels=("plane", "reason"))
    for (plane, action, reason), count in totals.flows.items():
        if count or reason in _POSSIBLE[action]:
            flows.add_metric((plane.value, action.value, reason.value), count)
            if action is Action.DENY:
                denies.add_metric((plane.value, reason.value), count)
    yield flows
    yield denies
    would_deny = CounterMetricFamily(
        "egressproxy_would_deny", "Flows that only audit mode let pass.", labels=("plane",)
    )
    active = GaugeMetricFamily("egressproxy_active_flows", "Open flows.", labels=("plane",))
    for plane in Plane:
        would_deny.add_metric((plane.value,), totals.would_deny[plane])
        active.add_metric((plane.value,), totals.active[plane])
    yield would_deny
    yield active
    relayed = CounterMetricFamily(
        "egressproxy_relayed_bytes", "Bytes passed on.", labels=("direction",)
    )
    relayed.add_metric(("up",), totals.bytes_up)
    relayed.add_metric(("down",), totals.bytes_down)
    yield relayed


def _distributions(totals: Totals) -> Iterator[Metric]:
    yield _histogram(
        "egressproxy_client_hello_bytes", "Size of ClientHellos with headers.", totals.hello
    )
    for latency, (name, about) in _LATENCIES.items():
        yield _histogram(name, about, totals.latencies[latency])


def _resolver_and_log(totals: Totals) -> Iterator[Metric]:
    lookups = CounterMetricFamily(
        "egressproxy_resolver_lookups",
        "Names looked up: in the cache (hit, negative), asked for (miss), without answer (error).",
        labels=("outcome",),
    )
    for outcome, count in totals.lookups.items():
        lookups.add_metric((outcome.value,), count)
    yield lookups
    yield CounterMetricFamily(
        "egressproxy_log_dropped_records",
        "Flow records lost: queue full or disk failing.",
        totals.log_dropped,
    )
    yield CounterMetricFamily(
        "egressproxy_log_folded_records",
        "Flow records that are in the log only as part of a count.",
        totals.log_folded,
    )
    yield CounterMetricFamily(
        "egressproxy_log_write_errors",
        "Failed writes of the record log, each retried.",
        totals.log_errors,
    )


def _kernel(totals: Totals) -> Iterator[Metric]:
    for what, (name, about) in _KERNEL.items():
        yield CounterMetricFamily(name, about, totals.kernel[what])
    for size, (name, about) in _NAMES.items():
        yield GaugeMetricFamily(name, about, totals.names[size])


def _review(totals: Totals) -> Iterator[Metric]:
    for what, (name, about) in _REVIEW.items():
        yield CounterMetricFamily(name, about, totals.review[what])
    lost = CounterMetricFamily(
        "egressproxy_export_lost",
        "Flow records that an export could not deliver.",
        labels=("outlet",),
    )
    for kind, records in totals.export_lost.items():
        lost.add_metric((kind.value,), records)
    yield lost


def _service(totals: Totals) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "egressproxy_engine_longest_stall_seconds",
        "Longest time an engine was away from its flows since its worker started.",
        totals.longest_stall_s,
    )
    reloads = CounterMetricFamily(
        "egressproxy_reloads",
        "Policy reloads: in force (ok), bad or denying too much (refused), not possible (failed).",
        labels=("outcome",),
    )
    for outcome, count in totals.reloads.items():
        reloads.add_metric((outcome.value,), count)
    yield reloads
    yield CounterMetricFamily(
        "egressproxy_worker_restarts", "Workers that died and were replaced.", totals.restarts
    )
    yield InfoMetricFamily(
        "egressproxy_build", "The running version.", {"version": version("egressproxy")}
    )
    if totals.policy_digest:
        yield InfoMetricFamily(
            "egressproxy_policy", "The policy in force.", {"digest": totals.policy_digest}
        )
        yield GaugeMetricFamily(
            "egressproxy_policy_loaded_timestamp_seconds",
            "When the policy in force was loaded.",
            totals.policy_loaded_at,
        )
    if totals.tags_dated:
        yield from _service_tags(totals)


def _service_tags(totals: Totals) -> Iterator[Metric]:
    dated = GaugeMetricFamily(
        "egressproxy_service_tags_timestamp_seconds",
        "Date of the service tag file: in its name (name), or when it was written here, which is"
        " not before it was published (modified).",
        labels=("dated_by",),
    )
    dated.add_metric((totals.tags_dated_by.value,), totals.tags_dated)
    yield dated
    yield GaugeMetricFamily(
        "egressproxy_service_tags_change_number",
        "Microsoft's number of the service tag file.",
        totals.tags_change_number,
    )


def _histogram(name: str, about: str, histogram: Histogram) -> Metric:
    bounds = (*(repr(float(bound)) for bound in histogram.bounds), "+Inf")
    buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
    return HistogramMetricFamily(name, about, buckets=buckets, sum_value=histogram.total)

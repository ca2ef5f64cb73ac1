from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from egressproxy.observe.cells import ExportKind, ReloadOutcome, ReviewCount
from egressproxy.observe.counters import Counters
from egressproxy.observe.metrics import CountersCollector
from egressproxy.observe.record import Plane
from egressproxy.policy.tag_edition import DatedBy, TagEdition
from egressproxy.policy.verdict import Action, Reason

if TYPE_CHECKING:
    from prometheus_client import Metric

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def families(counters: Counters) -> list[Metric]:
    registry = CollectorRegistry()
    registry.register(CountersCollector(counters))
    return list(text_string_to_metric_families(generate_latest(registry).decode()))


def samples(counters: Counters) -> Samples:
    found: Samples = {}
    for family in families(counters):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "each series once"
            found[key] = sample.value
    return found


@pytest.fixture
def counters() -> Counters:
    return Counters.create(2)


def test_workers_are_summed(counters: Counters) -> None:
    for index in range(2):
        row = counters.worker(index)
        row.flow(Plane.EXPLICIT, Action.DENY, Reason.HOST_MISMATCH)
        row.active(Plane.EXPLICIT, 3)
        row.bytes_moved(10, 20)
        row.decide_s(3e-6)
        row.hello_size(517)
        row.resolver("hit")
        row.log_dropped(1)
        row.log_folded(2)
        row.log_error()
        row.stall_s(0.25)
    found = samples(counters)
    plane, reason = ("plane", "explicit"), ("reason", "host_mismatch")
    assert found["egressproxy_flows_total", (("action", "deny"), plane, reason)] == 2
    assert found["egressproxy_denies_total", (plane, reason)] == 2
    assert found["egressproxy_active_flows", (plane,)] == 6
    assert found["egressproxy_relayed_bytes_total", (("direction", "up"),)] == 20
    assert found["egressproxy_relayed_bytes_total", (("direction", "down"),)] == 40
    assert found["egressproxy_decide_seconds_count", ()] == 2
    assert found["egressproxy_decide_seconds_sum", ()] == pytest.approx(6e-6)
    assert found["egressproxy_client_hello_bytes_sum", ()] == 1034
    assert found["egressproxy_resolver_lookups_total", (("outcome", "hit"),)] == 2
    assert found["egressproxy_log_dropped_records_total", ()] == 2
    assert found["egressproxy_log_folded_records_total", ()] == 4
    assert found["egressproxy_log_write_errors_total", ()] == 2
    assert found["egressproxy_engine_longest_stall_seconds", ()] == 0.25


def test_the_review(counters: Counters) -> None:
    counters.worker(0).review_dropped(2)
    counters.worker(1).review_dropped(3)
    counters.recorder().review(ReviewCount.STORED, 7)
    counters.recorder().review(ReviewCount.NEW_NAMES, 11)
    found = samples(counters)
    assert found["egressproxy_review_dropped_records_total", ()] == 5
    assert found["egressproxy_review_stored_records_total", ()] == 7
    assert found["egressproxy_first_seen_names_total", ()] == 11
    assert found["egressproxy_recorder_restarts_total", ()] == 0, "there from the start"


def test_exports(counters: Counters) -> None:
    counters.recorder().export_lost(ExportKind.SYSLOG, 3)
    found = samples(counters)
    assert found["egressproxy_export_lost_total", (("outlet", "syslog"),)] == 3
    assert found["egressproxy_export_lost_total", (("outlet", "otlp"),)] == 0


def test_the_kernel_s_firewall(counters: Counters) -> None:
    row = counters.supervisor()
    row.kernel_packets(2)
    row.kernel_lost(3)
    row.kernel_disagreement()
    row.unresolved_names(4)
    row.address_book(5, 6)
    found = samples(counters)
    assert found["egressproxy_kernel_packets_total", ()] == 2
    assert found["egressproxy_kernel_lost_packets_total", ()] == 3
    assert found["egressproxy_kernel_disagreements_total", ()] == 1
    assert found["egressproxy_name_set_errors_total", ()] == 0
    assert found["egressproxy_unresolved_names", ()] == 4
    assert found["egressproxy_address_book_names", ()] == 5
    assert found["egressproxy_address_book_entries", ()] == 6


def test_what_the_supervisor_says(counters: Counters) -> None:
    assert not any(name == "egressproxy_policy_info" for name, _ in samples(counters))
    counters.set_policy("ab" * 32, 1_790_000_000.0)
    counters.reloaded(ReloadOutcome.REFUSED)
    counters.restarted(1)
    found = samples(counters)
    assert found["egressproxy_policy_info", (("digest", "ab" * 32),)] == 1
    assert found["egressproxy_policy_loaded_timestamp_seconds", ()] == 1_790_000_000
    assert found["egressproxy_reloads_total", (("outcome", "refused"),)] == 1
    assert found["egressproxy_reloads_total", (("outcome", "ok"),)] == 0
    assert found["egressproxy_worker_restarts_total", ()] == 1


@pytest.mark.parametrize("by", DatedBy)
def test_service_tags_that_a_policy_has(counters: Counters, by: DatedBy) -> None:
    name = "egressproxy_service_tags_timestamp_seconds"
    assert not any(found == name for found, _ in samples(counters))
    edition = TagEdition(Path("tags.json"), "Public", 374, 1_790_000_000.5, by)
    counters.set_service_tags(edition)
    found = samples(counters)
    assert found[name, (("dated_by", by.value),)] == 1_790_000_000.5
    assert found["egressproxy_service_tags_change_number", ()] == 374
    counters.set_service_tags(None)
    assert not any("service_tags" in found for found, _ in samples(counters))


def test_conventions(counters: Counters) -> None:
    counters.set_policy("ab" * 32, 1.0)
    counters.set_service_tags(TagEdition(Path("t"), "Public", 1, 1.0, DatedBy.NAME))
    for family in families(counters):
        assert family.name.startswith("egressproxy_")
        assert family.documentation.endswith(".")
        for sample in family.samples:
            if family.type == "counter":
                assert sample.name.endswith("_total")
            if "latency" in family.name or family.name.endswith("_s"):
                pytest.fail(f"{family.name}: seconds are written out")


def test_buckets_are_cumulative_and_end_with_infinity(counters: Counters) -> None:
    row = counters.worker(0)
    for seconds in (0.0005, 0.002, 0.3, 60.0):
        row.dial_s(seconds)
    family = next(f for f in families(counters) if f.name == "egressproxy_dial_seconds")
    assert family.type == "histogram"
    buckets = [(s.labels["le"], s.value) for s in family.samples if s.name.endswith("_bucket")]
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    assert buckets[0] == ("0.001", 1.0)
    assert buckets[-1] == ("+Inf", 4.0)
    assert dict(buckets)["0.5"] == 3


def test_series_that_can_occur_are_there_from_the_start(counters: Counters) -> None:
    found = samples(counters)
    for plane in Plane:
        for action, reason in (
            (Action.ALLOW, Reason.RULE),
            (Action.ALLOW, Reason.DEFAULT_DENY),
            (Action.DENY, Reason.DEFAULT_DENY),
            (Action.ERROR, Reason.RESOLVE_FAILED),
        ):
            labels = (("action", action.value), ("plane", plane.value), ("reason", reason.value))
            assert found["egressproxy_flows_total", labels] == 0
    assert not any(
        dict(labels) == {"action": "allow", "plane": "explicit", "reason": "host_mismatch"}
        for _, labels in found
    )


def test_a_combination_nobody_thought_of_is_still_shown(counters: Counters) -> None:
    counters.worker(0).flow(Plane.EXPLICIT, Action.ALLOW, Reason.HOST_MISMATCH)
    labels = (("action", "allow"), ("plane", "explicit"), ("reason", "host_mismatch"))
    assert samples(counters)["egressproxy_flows_total", labels] == 1


def test_labels_come_from_enums_only(counters: Counters) -> None:
    labels = {label for _, pairs in samples(counters) for label, _ in pairs}
    assert labels <= {
        "plane",
        "action",
        "reason",
        "direction",
        "le",
        "outcome",
        "version",
        "outlet",
    }

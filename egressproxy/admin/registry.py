"""What ``/metrics`` shows: the workers' counters and the supervisor's own view of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from egressproxy.observe.metrics import CountersCollector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

    from egressproxy.service.firewall import Firewall
    from egressproxy.service.supervisor import Supervisor


class ServiceCollector(Collector):
    """Readiness, workers in service, and the outcome of the last reload."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def collect(self) -> Iterable[Metric]:
        """The families; each is there from the start."""
        supervisor = self._supervisor
        slots = supervisor.crew.slots if supervisor.crew else []
        yield GaugeMetricFamily(
            "egressproxy_ready",
            "Whether every worker serves the current policy",
            value=float(supervisor.is_ready),
        )
        yield GaugeMetricFamily(
            "egressproxy_workers_serving",
            "Worker processes that serve the current policy",
            value=sum(slot.is_serving for slot in slots),
        )
        report = supervisor.last_reload
        yield GaugeMetricFamily(
            "egressproxy_last_reload_successful",
            "Whether the policy files say what is in force",
            value=float(report is not None and report.is_ok),
        )
        yield GaugeMetricFamily(
            "egressproxy_last_reload_timestamp_seconds",
            "When the last reload was asked for, successful or not",
            value=report.at if report else 0.0,
        )
        yield GaugeMetricFamily(
            "egressproxy_last_reload_duration_seconds",
            "How long the last reload took",
            value=report.duration_s if report else 0.0,
        )
        yield GaugeMetricFamily(
            "egressproxy_last_reload_stall_seconds",
            "The longest time that an engine could not run during the last reload",
            value=report.installation.stall_s if report else 0.0,
        )
        yield from _firewall(supervisor.firewall)


def _firewall(firewall: Firewall | None) -> Iterable[Metric]:
    """Without one (``run``) the families have no samples."""
    up = GaugeMetricFamily(
        "egressproxy_firewall_up",
        "Whether table, routing guard and sysctls are as the policy needs them",
        labels=(),
    )
    judged = CounterMetricFamily(
        "egressproxy_kernel_judged_packets",
        "Packets that open a connection, by what the kernel did with them (at most 5 s old)",
        labels=("outcome",),
    )
    if firewall is not None:
        up.add_metric((), float(firewall.is_up))
        for outcome, packets in firewall.judged().items():
            judged.add_metric((outcome,), packets)
    yield up
    yield judged


def make_registry(supervisor: Supervisor) -> CollectorRegistry:
    """A registry of its own; the process metrics are the supervisor's."""
    registry = CollectorRegistry()
    registry.register(CountersCollector(supervisor.counters))
    registry.register(ServiceCollector(supervisor))
    ProcessCollector(registry=registry)
    return registry

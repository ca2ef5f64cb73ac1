"""Batches to a collector that is away for a while, or for good; what is lost is counted."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from egressproxy.export import otlp_delivery as module
from egressproxy.export.otlp_delivery import Delivery

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH: Any = ["a", "b", "c"]


class Collector(LogRecordExporter):
    """Fails so many times, as the SDK's does: with a word in ``logging``, or by raising."""

    def __init__(self, failures: int, *, raises: bool = False) -> None:
        self.failures = failures
        self.raises = raises
        self.tries = 0
        self.tried = threading.Event()
        self.is_shut = False

    def export(self, batch: Sequence[Any]) -> LogRecordExportResult:
        self.tries += 1
        self.tried.set()
        if self.tries > self.failures:
            return LogRecordExportResult.SUCCESS
        if self.raises:
            raise ZeroDivisionError
        logging.getLogger("opentelemetry.exporter.otlp.proto").error("code: %s", 503)
        return LogRecordExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        return True

    def shutdown(self) -> None:
        self.is_shut = True


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(module, "_END_PAUSE_S", 0.001)


@pytest.mark.parametrize("raises", [False, True])
def test_a_collector_that_comes_back_gets_the_batch(raises: bool) -> None:
    collector = Collector(3, raises=raises)
    delivery = Delivery(collector)
    assert delivery.export(BATCH) is LogRecordExportResult.SUCCESS
    assert (collector.tries, delivery.delivered, delivery.lost) == (4, 3, 0)
    assert delivery.trouble == ""
    assert delivery.force_flush()
    delivery.shutdown()
    assert collector.is_shut


def test_one_that_stays_away_costs_the_batch_and_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    delivery = Delivery(Collector(1 << 30))
    assert delivery.export(BATCH) is LogRecordExportResult.FAILURE
    assert (delivery.delivered, delivery.lost, delivery.trouble) == (0, 3, "code: 503")
    delivery.shutdown()
    assert capfd.readouterr().err == "", "the journal says it, once"


def test_the_end_waits_for_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 3600.0)
    collector = Collector(1)
    delivery = Delivery(collector)
    results: list[LogRecordExportResult] = []
    thread = threading.Thread(target=lambda: results.append(delivery.export(BATCH)))
    thread.start()
    assert collector.tried.wait(20.0)
    delivery.end_by(time.monotonic() + 20.0)
    thread.join(20.0)
    assert results == [LogRecordExportResult.SUCCESS]


@pytest.mark.parametrize("is_shut", [False, True])
def test_after_the_end_a_batch_is_tried_once(is_shut: bool) -> None:
    collector = Collector(1 << 30)
    delivery = Delivery(collector)
    delivery.end_by(time.monotonic() if not is_shut else float("inf"))
    if is_shut:
        delivery.shutdown()
        delivery.shutdown()
    assert delivery.export(BATCH) is LogRecordExportResult.FAILURE
    assert (collector.tries, delivery.lost) == (1, 3)

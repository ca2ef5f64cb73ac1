"""``Delivery``: OTLP batches to a collector that may be away for a while, counted.

Imported only with OpenTelemetry's SDK installed, see ``otlp``.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk._logs import ReadableLogRecord

PATIENCE_S: Final = 60.0
"""How long one batch is tried: longer than a collector restarts. Others wait behind it."""
_FIRST_PAUSE_S: Final = 0.5
_MAX_PAUSE_S: Final = 10.0
_END_PAUSE_S: Final = 0.05
_SPEAKER: Final = "opentelemetry.exporter.otlp"


class Delivery(LogRecordExporter):
    """An exporter around the SDK's, which tries each batch for a few seconds."""

    def __init__(self, exporter: LogRecordExporter) -> None:
        self.delivered = 0
        self.lost = 0
        self.trouble = ""
        self._exporter = exporter
        self._is_ending = threading.Event()
        self._deadline = float("inf")
        self._is_shut = False
        self._words = _LastWord()
        speaker = logging.getLogger(_SPEAKER)
        speaker.addHandler(self._words)
        speaker.addHandler(logging.NullHandler())  # after the end nothing goes to stderr either
        speaker.propagate = False  # ``trouble`` says it once, not with every try

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Deliver a batch or lose it; the SDK calls this in its own thread."""
        until = time.monotonic() + PATIENCE_S
        pause_s = _FIRST_PAUSE_S
        while not (is_sent := self._is_taken(batch)):
            if min(until, self._deadline) <= time.monotonic() or self._is_shut:
                break
            if self._is_ending.wait(pause_s):
                time.sleep(_END_PAUSE_S)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)
        if is_sent:
            self.delivered += len(batch)
            self.trouble = ""
            return LogRecordExportResult.SUCCESS
        self.lost += len(batch)
        return LogRecordExportResult.FAILURE

    def end_by(self, deadline: float) -> None:
        """Pause no more, and give up at a moment (monotonic seconds)."""
        self._deadline = deadline
        self._is_ending.set()

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Nothing waits here."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Give up what is still tried."""
        if not self._is_shut:
            self._is_shut = True
            self._is_ending.set()
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # as the SDK has it
            logging.getLogger(_SPEAKER).removeHandler(self._words)

    def _is_taken(self, batch: Sequence[ReadableLogRecord]) -> bool:
        self._words.text = ""
        with suppress(Exception):
            if self._exporter.export(batch) is LogRecordExportResult.SUCCESS:
                return True
        self.trouble = self._words.text or self.trouble or "the collector took no records"
        return False


class _LastWord(logging.Handler):
    """Remembers what the SDK says, which is the only place where it says why."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()

"""``OtlpSender``: flow records as OpenTelemetry logs, by OTLP over HTTP.

The SDK batches and sends. It is an extra (``pip install 'egressproxy[otlp]'``), imported only where
a collector is named. Attributes follow the semantic conventions where they have
a word (``client.address``, ``server.address``, ``network.transport``, …); the rest is
``egressproxy.*`` with the record's own names.

The SDK gives up a batch after some seconds, and tells nobody how many records it lost. So what goes
in is counted here, and what comes out by ``otlp_delivery``, which also tries longer.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from egressproxy.errors import ServiceError
from egressproxy.export.moment import nanoseconds
from egressproxy.export.outlet import CLOSE_S, MAX_WAITING
from egressproxy.export.syslog_message import Severity, severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk._logs.export import LogRecordExporter

    from egressproxy.export.outlet import OtlpTarget
    from egressproxy.observe.record import FlowRecord

EVENT: Final = "egressproxy.flow"
BATCH: Final = 512
DELAY_MS: Final = 1000
_OWN: Final = (
    "action",
    "reason",
    "rule",
    "would_deny",
    "plane",
    "source_group",
    "name_source",
    "ech",
    "hello_split",
    "destination_match",
    "bytes_up",
    "bytes_down",
    "requests",
    "duration_s",
    "close_reason",
    "policy",
    "count",
    "note",
)
_NUMBERS: Final = {
    Severity.ERROR: (17, "ERROR"),
    Severity.WARNING: (13, "WARN"),
    Severity.NOTICE: (10, "INFO2"),
    Severity.INFORMATIONAL: (9, "INFO"),
}
"""Severity numbers of the OpenTelemetry logs data model."""


class OtlpSender:
    """An ``Outlet``.

    Args:
        target: the collector.
        gateway: ``service.instance.id`` of the resource.
        version: of this software.
        exporter: in place of the one for ``target``, for tests.

    Raises:
        ServiceError: the extra is not installed.
    """

    def __init__(
        self,
        target: OtlpTarget,
        gateway: str,
        version: str,
        *,
        exporter: LogRecordExporter | None = None,
    ) -> None:
        try:
            from opentelemetry._logs import SeverityNumber
            from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
            from opentelemetry.sdk._logs import LoggerProvider
            from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
            from opentelemetry.sdk.resources import Resource
        except ImportError as error:
            raise ServiceError(
                "OpenTelemetry's SDK is not installed", hint="pip install 'egressproxy[otlp]'"
            ) from error
        from egressproxy.export.otlp_delivery import Delivery

        resource = {"service.name": "egressproxy", "service.version": version}
        self._provider = LoggerProvider(
            Resource.create({**resource, "service.instance.id": gateway}), shutdown_on_exit=False
        )
        self._delivery = Delivery(exporter or OTLPLogExporter(endpoint=target.url))
        self._provider.add_log_record_processor(
            BatchLogRecordProcessor(
                self._delivery,
                schedule_delay_millis=DELAY_MS,
                max_export_batch_size=BATCH,
                max_queue_size=MAX_WAITING,
            )
        )
        self._severity = SeverityNumber
        self._logger = self._provider.get_logger("egressproxy", version)
        self._taken = 0
        self._refused = 0
        self._is_closed = False

    @property
    def lost(self) -> int:
        """Not taken because too many waited, or not delivered in time."""
        undelivered = self._taken - self._delivery.delivered if self._is_closed else 0
        return self._refused + max(self._delivery.lost, undelivered)

    @property
    def waiting(self) -> int:
        """Records that the SDK has."""
        done = self._delivery.delivered + self._delivery.lost
        return 0 if self._is_closed else self._taken - done

    @property
    def trouble(self) -> str:
        """What the SDK said of the last failure."""
        return self._delivery.trouble

    def take(self, records: Sequence[FlowRecord]) -> None:
        """Hand records to the SDK; beyond ``MAX_WAITING`` the new ones are lost."""
        room = 0 if self._is_closed else MAX_WAITING - self.waiting
        self._refused += max(0, len(records) - room)
        for record in records[:room]:
            number, text = _NUMBERS[severity(record)]
            self._taken += 1  # before the SDK can have delivered it
            self._logger.emit(
                timestamp=nanoseconds(record.time),
                observed_timestamp=time.time_ns(),
                severity_number=self._severity(number),
                severity_text=text,
                body=sentence(record),
                attributes=attributes(record),
                event_name=EVENT,
            )

    def reopen(self) -> None:
        """Nothing to do: there is no file."""

    def close(self) -> None:
        """Send what waits, ``CLOSE_S`` at most; the SDK itself would take half a minute."""
        self._delivery.end_by(time.monotonic() + CLOSE_S)
        ending = threading.Thread(target=self._provider.shutdown, name="otlp end", daemon=True)
        ending.start()
        ending.join(CLOSE_S)
        self._delivery.shutdown()  # ends the SDK's own pauses
        self._is_closed = True


def sentence(record: FlowRecord) -> str:
    """A record in one line, for people; what a client put into its name cannot act on a screen."""
    asked = record.name or record.dst_ip or "somewhere"
    target = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in asked)
    outcome = f"would deny ({record.reason})" if record.would_deny else str(record.action)
    return (
        f"{outcome} {record.protocol}:{record.dst_port} {target} from {record.src_ip}:"
        f" {record.reason}{f' ({record.rule})' if record.rule else ''}"
    )


def attributes(record: FlowRecord) -> dict[str, Any]:
    """The attributes of a record; what it does not have is left out."""
    own = {f"egressproxy.{field}": getattr(record, field) for field in _OWN}
    is_udp = record.protocol == "udp"
    found = {
        "event.name": EVENT,
        "client.address": record.src_ip,
        "client.port": record.src_port,
        "server.address": record.name or record.dst_ip,
        "server.port": record.dst_port,
        "destination.address": record.dst_ip,
        "network.peer.address": record.dialled_ip,
        "network.transport": "udp" if is_udp else "tcp",
        "network.protocol.name": record.protocol,
        "tls.client.server_name": record.name if record.name_source == "sni" else None,
        "egressproxy.flow_id": record.flow_id,
        "egressproxy.pass": str(record.decided_by),
        "egressproxy.alpn": list(record.alpn) or None,
        **{key: str(value) if isinstance(value, str) else value for key, value in own.items()},
    }
    return {key: value for key, value in found.items() if value not in (None, "")}

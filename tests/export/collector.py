"""An OTLP receiver of HTTP requests, decoded by OTLP's own protobuf messages."""

from __future__ import annotations

import gzip
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def collector(requests: list[ExportLogsServiceRequest], port: int = 0) -> Iterator[str]:
    """A server that takes OTLP logs over HTTP, as a collector's receiver does."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/logs"
            requests.append(ExportLogsServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/logs"
        finally:
            server.shutdown()
            thread.join()


def plain(value: Any) -> Any:
    """An AnyValue as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, kind)


def attributes_in(requests: Sequence[ExportLogsServiceRequest]) -> list[dict[str, Any]]:
    """The attributes of every log record, in the order they came."""
    return [
        {item.key: plain(item.value) for item in log.attributes}
        for request in requests
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for log in scope.log_records
    ]

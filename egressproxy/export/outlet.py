"""``Outlet``: where records go in another form, and the texts that name one (``--export``).

::

    azure:FOLDER                 a file a table of Azure Firewall's, rows as JSON lines
    syslog:udp://HOST[:PORT]     RFC 5426; port 514
    syslog:tcp://HOST[:PORT]     RFC 6587, octet counting; port 601
    syslog:tls://HOST[:PORT]     RFC 5425; port 6514; ?ca=FILE and &cert=FILE, see ``SyslogTarget``
    syslog:unix:PATH             a datagram socket, as /dev/log
    otlp:http(s)://HOST[:PORT]   OpenTelemetry logs by HTTP; /v1/logs where there is no path

An outlet never keeps its caller waiting for a peer: what does not fit is lost and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Protocol
from urllib.parse import SplitResult, parse_qsl, urlsplit

from egressproxy.errors import ServiceError
from egressproxy.observe.cells import ExportKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.observe.record import FlowRecord

_FORMS: Final = (
    "azure:FOLDER, syslog:udp|tcp|tls://HOST[:PORT], syslog:unix:PATH or otlp:http(s)://HOST[:PORT]"
)
_SYSLOG_PORTS: Final = {"udp": 514, "tcp": 601, "tls": 6514}
_OTLP_PATH: Final = "/v1/logs"
_TLS_FILES: Final = frozenset({"ca", "cert"})


class Outlet(Protocol):
    """A destination of records. Used by one thread, but for ``close``, which may have its own."""

    @property
    def lost(self) -> int:
        """Records that could not be delivered, so far."""
        ...

    @property
    def waiting(self) -> int:
        """Records that were taken and are neither delivered nor lost."""
        ...

    @property
    def trouble(self) -> str:
        """Why nothing is delivered now; empty where all is well."""
        ...

    def take(self, records: Sequence[FlowRecord]) -> None:
        """Deliver records, at once or soon; never raises and never waits for a peer."""
        ...

    def reopen(self) -> None:
        """Open files by name again, after somebody renamed them."""
        ...

    def close(self) -> None:
        """Deliver what is waiting, for ``CLOSE_S`` at most, and let go; the rest is lost."""
        ...


CLOSE_S: Final = 3.0
MAX_WAITING: Final = 10_000
"""Records that an outlet keeps while its peer is away: about 10 MB."""


@dataclass(frozen=True, slots=True)
class AzureTarget:
    """A folder of files, one a table."""

    kind: ClassVar[ExportKind] = ExportKind.AZURE
    folder: Path

    def __str__(self) -> str:
        return f"azure:{self.folder}"


@dataclass(frozen=True, slots=True)
class SyslogTarget:
    """A syslog receiver; ``transport`` is udp, tcp, tls or unix, where ``host`` is the path.

    ``ca`` is a PEM file with the authorities that TLS trusts instead of the system's; ``cert`` one
    with our certificate and its key, for receivers that want to know who sends.
    """

    kind: ClassVar[ExportKind] = ExportKind.SYSLOG
    transport: str
    host: str
    port: int = 0
    ca: Path | None = None
    cert: Path | None = None

    def __str__(self) -> str:
        if self.transport == "unix":
            return f"syslog:unix:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"syslog:{self.transport}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """A collector's URL for logs."""

    kind: ClassVar[ExportKind] = ExportKind.OTLP
    url: str

    def __str__(self) -> str:
        return f"otlp:{self.url.partition('?')[0]}"  # a query may hold a key


Target = AzureTarget | SyslogTarget | OtlpTarget


def parse_target(text: str) -> Target:
    """Read one text of the table above.

    Raises:
        ServiceError: it is none of them.
    """
    kind, _, rest = text.partition(":")
    if kind == "azure" and rest:
        return AzureTarget(Path(rest))
    if kind == "syslog" and rest.removeprefix("unix:") and rest.startswith("unix:"):
        return SyslogTarget("unix", rest.removeprefix("unix:"))
    if kind in ("syslog", "otlp"):
        return _network_target(kind, rest, text)
    raise _unreadable(text)


def _network_target(kind: str, rest: str, text: str) -> Target:
    try:
        url = urlsplit(rest)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise _unreadable(text) from error
    if not host or port == 0 or any(c <= " " for c in rest):
        raise _unreadable(text)
    if url.username is not None:
        raise ServiceError(
            f"{kind}: a place to export to has no user or password in it",
            hint="OTLP: the header that a collector wants is in OTEL_EXPORTER_OTLP_HEADERS",
        )
    if kind == "otlp" and url.scheme in ("http", "https"):
        return OtlpTarget(_with_path(url))
    if kind == "syslog" and url.scheme in _SYSLOG_PORTS and url.path in ("", "/"):
        ca, cert = _tls_files(url, text)
        return SyslogTarget(url.scheme, host, port or _SYSLOG_PORTS[url.scheme], ca, cert)
    raise _unreadable(text)


def _tls_files(url: SplitResult, text: str) -> tuple[Path | None, Path | None]:
    try:
        files = dict(parse_qsl(url.query, strict_parsing=True)) if url.query else {}
    except ValueError as error:
        raise _unreadable(text) from error
    if url.fragment or not files.keys() <= _TLS_FILES or (files and url.scheme != "tls"):
        raise _unreadable(text)
    ca, cert = (Path(files[name]) if name in files else None for name in ("ca", "cert"))
    return ca, cert


def _with_path(url: SplitResult) -> str:
    return url.geturl() if url.path.strip("/") else url._replace(path=_OTLP_PATH).geturl()


def _unreadable(text: str) -> ServiceError:
    return ServiceError(f"{text!r} is no place to export to", hint=f"write {_FORMS}")

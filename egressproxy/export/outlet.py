"""``Outlet``: where records go in another form, and the texts that name one (``--export``).

::

    azure:FOLDER                 a file a table of Azure Firewall's, rows as JSON lines
    syslog:udp://HOST[:PORT]     RFC 5426; port 514
    syslog:tcp://HOST[:PORT]     RFC 6587, octet counting; port 601
    syslog:tls://HOST[:PORT]     RFC 5425; port 6514, the system's certificate authorities
    syslog:unix:PATH             a datagram socket, as /dev/log
    otlp:http(s)://HOST[:PORT]   OpenTelemetry logs by HTTP; /v1/logs where there is no path

An outlet never keeps its caller waiting: what does not fit is dropped and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import SplitResult, urlsplit

from egressproxy.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.observe.record import FlowRecord

_FORMS: Final = (
    "azure:FOLDER, syslog:udp|tcp|tls://HOST[:PORT], syslog:unix:PATH or otlp:http(s)://HOST[:PORT]"
)
_SYSLOG_PORTS: Final = {"udp": 514, "tcp": 601, "tls": 6514}
_OTLP_PATH: Final = "/v1/logs"


class Outlet(Protocol):
    """A destination of records. Used by one thread."""

    @property
    def lost(self) -> int:
        """Records that could not be delivered, so far."""
        ...

    def take(self, records: Sequence[FlowRecord]) -> None:
        """Deliver records, at once or soon; never raises and never waits for a peer."""
        ...

    def close(self) -> None:
        """Deliver what is waiting, for a few seconds at most, and let go."""
        ...


@dataclass(frozen=True, slots=True)
class AzureTarget:
    """A folder of files, one a table."""

    folder: Path


@dataclass(frozen=True, slots=True)
class SyslogTarget:
    """A syslog receiver; ``transport`` is udp, tcp, tls or unix, where ``host`` is the path."""

    transport: str
    host: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """A collector's URL for logs."""

    url: str


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
    if not host or url.username is not None or any(c <= " " for c in rest):
        raise _unreadable(text)
    if kind == "otlp" and url.scheme in ("http", "https"):
        return OtlpTarget(_with_path(url))
    if kind == "syslog" and url.scheme in _SYSLOG_PORTS and url.path in ("", "/"):
        return SyslogTarget(url.scheme, host, port or _SYSLOG_PORTS[url.scheme])
    raise _unreadable(text)


def _with_path(url: SplitResult) -> str:
    return url.geturl() if url.path.strip("/") else url._replace(path=_OTLP_PATH).geturl()


def _unreadable(text: str) -> ServiceError:
    return ServiceError(f"{text!r} is no place to export to", hint=f"write {_FORMS}")

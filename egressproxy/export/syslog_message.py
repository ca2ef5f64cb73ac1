"""Flow records as syslog messages (RFC 5424): a header, and the record's own JSON as the message.

Severity tells the outcome, MSGID the reason, so that a receiver can route without reading JSON.
Structured data are the two elements that IANA has registered for everyone (``meta``, ``origin``,
RFC 5424 section 7); an element of our own would need an enterprise number.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from egressproxy.export.moment import utc_text
from egressproxy.observe.record import to_json_line
from egressproxy.policy.verdict import Action

if TYPE_CHECKING:
    from egressproxy.observe.record import FlowRecord

LOCAL0: Final = 16
"""The facility (RFC 5424 section 6.2.1)."""

APP_NAME: Final = "egressproxy"
_SEQUENCES: Final = 2147483647  # sequenceId starts again at 1 after it (section 7.3.1)
_HOSTNAME: Final = 255
_NIL: Final = "-"


class Severity(IntEnum):
    """RFC 5424 section 6.2.1; those that are used."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFORMATIONAL = 6


def severity(record: FlowRecord) -> Severity:
    """A deny is a warning, what audit let pass a notice, an allow is information."""
    if record.action is Action.ERROR:
        return Severity.ERROR
    if record.action is Action.DENY:
        return Severity.WARNING
    return Severity.NOTICE if record.would_deny else Severity.INFORMATIONAL


class SyslogFormat:
    """Writes messages of one gateway, numbered so that a receiver sees what was lost.

    Args:
        gateway: the HOSTNAME; what is not printable ASCII is replaced.
        version: of this software, for ``origin``.
    """

    def __init__(self, gateway: str, version: str) -> None:
        host = "".join(c if c.isascii() and c.isprintable() and c != " " else "_" for c in gateway)
        self._host = host[:_HOSTNAME] or _NIL
        self._origin = f'[origin software="{APP_NAME}" swVersion="{_value(version)}"]'
        self._sequence = 0

    def skip(self) -> None:
        """Leave out a number, for a message that is lost before it is sent."""
        self._sequence = self._sequence % _SEQUENCES + 1

    def message(self, record: FlowRecord) -> bytes:
        """One message without framing: under 5 KiB, ASCII, no line break in it."""
        self.skip()
        priority = LOCAL0 * 8 + severity(record)
        return (
            f"<{priority}>1 {utc_text(record.time)} {self._host} {APP_NAME} {_NIL} {record.reason}"
            f' [meta sequenceId="{self._sequence}"]{self._origin} '
        ).encode("ascii") + to_json_line(record).rstrip(b"\n")


def octet_counted(message: bytes) -> bytes:
    """A message framed for a stream (RFC 6587 section 3.4.1, RFC 5425 section 4.3)."""
    return b"%d %s" % (len(message), message)


def _value(text: str) -> str:
    """A parameter's value: what would end it is escaped (section 6.3.3)."""
    kept = "".join(c for c in text if c.isascii() and c.isprintable())
    return kept.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")

r"""``FlowRecord``: what is remembered of one judged name, and its one line of JSON.

It knows the fields and how to write them so that nothing a peer chose can forge a line, colour a
terminal or reverse its reading order: the output is ASCII, control characters, bidirectional marks
and line separators are ``\u`` escapes (RFC 8259 section 7), lone surrogates become U+FFFD, long
texts are cut with ``…``, and a line stays under ``MAX_LINE_BYTES``. It knows no file and no queue.
"""

from __future__ import annotations

import time
from enum import StrEnum
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quote
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from egressproxy.policy.verdict import Action, Pass, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA: Final = 1
MAX_LINE_BYTES: Final = 4096
"""A line with its newline is never longer: PIPE_BUF, so that several workers may share a pipe."""

_PEER_TEXT: Final = 256  # characters of a name the peer chose; a DnsName has at most 253
_OWN_TEXT: Final = 128  # rule ids, groups, notes: chosen by whoever wrote the policy
_ADDRESS_TEXT: Final = 64
_ALPN_TEXT: Final = 32
_LIST_ITEMS: Final = 8
_COMMON_PARTS: Final = 512  # of a few KiB each at worst, so records with long lists are left out
_MILLION: Final = 1_000_000
_END_OF_TIME: Final = 253402300799  # 9999-12-31T23:59:59Z


class Plane(StrEnum):
    """The way a flow came in."""

    EXPLICIT = "explicit"
    TRANSPARENT = "transparent"
    NETWORK = "network"


class NameSource(StrEnum):
    """What the judged name was read from."""

    SNI = "sni"
    HOST = "host"
    CONNECT = "connect"
    DNS = "dns"
    NONE = "none"


class FlowRecord(NamedTuple):
    """One judged name (schema 1); a tuple, because one is built for every flow.

    ``time`` is POSIX seconds of the judgement. ``decided_by`` is written as ``pass``. ``requests``
    counts the HTTP requests of that name on the connection. ``close_reason`` is ``open`` in the
    record that announces a flow which is still running. ``count`` is how many flows the record
    stands for. ``destination_match`` is ``yes``, ``no`` or ``unknown``; ``policy`` is the digest.
    ``hello_split``: the ClientHello fits one TLS record and segment, and yet came in more.
    """

    time: float
    flow_id: str
    src_port: int
    # From here to ``note``: what the flows between the same two ends have in common.
    action: Action
    reason: Reason
    plane: Plane
    protocol: str
    src_ip: str
    dst_port: int
    rule: str | None = None
    decided_by: Pass = Pass.NONE
    would_deny: bool = False
    source_group: str | None = None
    dst_ip: str | None = None
    name: str | None = None
    name_source: NameSource = NameSource.NONE
    alpn: tuple[str, ...] = ()
    tls_versions: tuple[str, ...] = ()
    ech: bool = False
    hello_split: bool = False
    dialled_ip: str | None = None
    destination_match: str = "unknown"
    close_reason: str = ""
    policy: str = ""
    note: str = ""
    bytes_up: int = 0
    bytes_down: int = 0
    requests: int = 0
    duration_s: float = 0.0
    count: int = 1  # type: ignore[assignment]  # the field's name; nobody counts in the tuple


def to_json_line(record: FlowRecord) -> bytes:
    """One ASCII line with its newline, keys in the order of the schema, never an error.

    ``None`` is ``null``; ``time`` is RFC 3339 in UTC with milliseconds.
    """
    write = _write_common if len(record.alpn) > _LIST_ITEMS else _common
    own, ends, outcome, note = write(record[3:25])
    # No number has a format of its own, so that the compiler joins the parts.
    line = (
        f'{_BEGIN}{_stamp(record.time)}","flow_id":{_text(record.flow_id, _ADDRESS_TEXT)}{own}'
        f',"src_port":{record.src_port}{ends},"bytes_up":{record.bytes_up}'
        f',"bytes_down":{record.bytes_down},"requests":{record.requests}'
        f',"duration_s":{_seconds(record.duration_s)}{outcome},"count":{record.count}{note}'
    )
    return line.encode("ascii")


_BEGIN: Final = f'{{"schema":{SCHEMA},"time":"'


def _write_common(fields: tuple[Any, ...]) -> tuple[str, str, str, str]:
    """The four stretches of a line between a flow's own values, for ``action`` to ``note``."""
    r = FlowRecord(0.0, "", 0, *fields)
    return (
        f',"action":"{r.action}","reason":"{r.reason}","rule":{_text(r.rule, _OWN_TEXT)}'
        f',"pass":"{r.decided_by}","would_deny":{_flag(r.would_deny)},"plane":"{r.plane}"'
        f',"protocol":{_text(r.protocol, _ALPN_TEXT)},"src_ip":{_text(r.src_ip, _ADDRESS_TEXT)}',
        f',"source_group":{_text(r.source_group, _OWN_TEXT)}'
        f',"dst_ip":{_text(r.dst_ip, _ADDRESS_TEXT)},"dst_port":{r.dst_port:d}'
        f',"name":{_text(r.name, _PEER_TEXT)},"name_source":"{r.name_source}"'
        f',"alpn":{_texts(r.alpn)},"tls_versions":{_texts(r.tls_versions)},"ech":{_flag(r.ech)}'
        f',"hello_split":{_flag(r.hello_split)}'
        f',"dialled_ip":{_text(r.dialled_ip, _ADDRESS_TEXT)}'
        f',"destination_match":{_text(r.destination_match, _ALPN_TEXT)}',
        f',"close_reason":{_text(r.close_reason, _ADDRESS_TEXT)}'
        f',"policy":{_text(r.policy, _ADDRESS_TEXT)}',
        f',"note":{_text(r.note, _OWN_TEXT)}}}\n',
    )


_common = lru_cache(maxsize=_COMMON_PARTS)(_write_common)


def forget_common() -> None:
    """Let go of remembered stretches of lines: they name a policy that is no longer in force."""
    _common.cache_clear()


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _seconds(value: float) -> str:
    """With six decimals."""
    microseconds = int(value * 1e6 + 0.5) if 0 <= value < 1e12 else 0  # a NaN too
    return f"{microseconds // _MILLION}.{str(_MILLION + microseconds % _MILLION)[1:]}"


def _text(text: str | None, limit: int) -> str:
    """A JSON string of at most ``2 * limit + 2`` bytes, or ``null``."""
    if text is None:
        return "null"
    if len(text) <= limit and text.isascii() and text.isprintable():
        return _quote(text)
    return _odd_text(text, limit)


def _odd_text(text: str, limit: int) -> str:
    whole = len(text) <= limit
    # A lone surrogate (how Python carries bytes that are not UTF-8) is not valid in JSON.
    text = text[:limit].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    quoted = _quote(text if whole else text[:-1] + "…").replace("\x7f", "\\u007f")
    if len(quoted) <= 2 * limit + 2:
        return quoted
    # An escape takes up to 12 bytes (a surrogate pair), so this many fit whatever they are.
    return _quote(text[: limit // 6 - 1] + "…").replace("\x7f", "\\u007f")


def _texts(texts: Sequence[str]) -> str:
    if not texts:
        return "[]"
    shown = [_text(text, _ALPN_TEXT) for text in texts[:_LIST_ITEMS]]
    if len(texts) > _LIST_ITEMS:
        shown.append('"\\u2026"')
    return f"[{','.join(shown)}]"


_THOUSANDTHS: Final = tuple(f".{number:03d}Z" for number in range(1000))
_last_stamp: tuple[int, str] = (-1, "")


def _stamp(moment: float) -> str:
    """RFC 3339 text; the second's part is kept, because records come in bursts."""
    global _last_stamp  # one tuple, replaced whole: safe between threads
    if not 0 <= moment < _END_OF_TIME:
        moment = 0.0  # a NaN too
    milliseconds = int(moment * 1000 + 0.5)
    whole = milliseconds // 1000
    second, text = _last_stamp
    if second != whole:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        _last_stamp = (whole, text)
    return text + _THOUSANDTHS[milliseconds % 1000]

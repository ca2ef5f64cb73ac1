"""``read_line``: the strict inverse of ``record.to_json_line``.

A line may come from a pipe, from a file of another gateway, or from whoever could write to one, so
nothing in it is believed: what ``to_json_line`` would not have written is ``None``, never an error.
Keys that a later version added are ignored. Texts are raw again: whoever shows them escapes them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from egressproxy.observe.record import (
    MAX_LINE_BYTES,
    SCHEMA,
    FlowRecord,
    NameSource,
    Plane,
)
from egressproxy.policy.verdict import Action, Pass, Reason
from egressproxy.ports import MAX_PORT

MAX_COUNT: Final = 1 << 32
"""Flows or requests that one record may stand for."""
MAX_BYTES: Final = 1 << 46
"""Octets of one flow in one direction, 64 TiB: sums of very many still fit 63 bits."""

_PEER_TEXT: Final = 256
_OWN_TEXT: Final = 128
_ADDRESS_TEXT: Final = 64
_SHORT_TEXT: Final = 32
_LIST_ITEMS: Final = 9  # eight and the mark that there were more
_MAX_SECONDS: Final = 1e12

# A lookup in a dict takes a tenth of what the enum's constructor does.
_ACTIONS: Final = {each.value: each for each in Action}
_REASONS: Final = {each.value: each for each in Reason}
_PLANES: Final = {each.value: each for each in Plane}
_PASSES: Final = {each.value: each for each in Pass}
_NAME_SOURCES: Final = {each.value: each for each in NameSource}


def read_line(line: bytes) -> FlowRecord | None:
    """The record of one line, with or without its newline; ``None`` is not one of ours."""
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        return _record(_decode(line.decode("ascii")))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _record(body: dict[str, Any]) -> FlowRecord:
    if type(body) is not dict or _whole(body["schema"], SCHEMA) != SCHEMA:
        raise ValueError
    return FlowRecord(
        time=_moment(body["time"]),
        flow_id=_text(body["flow_id"], _ADDRESS_TEXT),
        src_port=_whole(body["src_port"], MAX_PORT),
        action=_ACTIONS[body["action"]],
        reason=_REASONS[body["reason"]],
        plane=_PLANES[body["plane"]],
        protocol=_text(body["protocol"], _SHORT_TEXT),
        src_ip=_text(body["src_ip"], _ADDRESS_TEXT),
        dst_port=_whole(body["dst_port"], MAX_PORT),
        rule=_text_or_none(body["rule"], _OWN_TEXT),
        decided_by=_PASSES[body["pass"]],
        would_deny=_flag(body["would_deny"]),
        source_group=_text_or_none(body["source_group"], _OWN_TEXT),
        dst_ip=_text_or_none(body["dst_ip"], _ADDRESS_TEXT),
        name=_text_or_none(body["name"], _PEER_TEXT),
        name_source=_NAME_SOURCES[body["name_source"]],
        alpn=_texts(body["alpn"]),
        tls_versions=_texts(body["tls_versions"]),
        ech=_flag(body["ech"]),
        hello_split=_flag(body.get("hello_split", False)),  # a field added to schema 1
        dialled_ip=_text_or_none(body["dialled_ip"], _ADDRESS_TEXT),
        destination_match=_text(body["destination_match"], _SHORT_TEXT),
        close_reason=_text(body["close_reason"], _ADDRESS_TEXT),
        policy=_text(body["policy"], _ADDRESS_TEXT),
        note=_text(body["note"], _OWN_TEXT),
        bytes_up=_whole(body["bytes_up"], MAX_BYTES),
        bytes_down=_whole(body["bytes_down"], MAX_BYTES),
        requests=_whole(body["requests"], MAX_COUNT),
        duration_s=_seconds(body["duration_s"]),
        count=_whole(body["count"], MAX_COUNT),
    )


def _no_constant(_: str) -> float:
    raise ValueError  # NaN and Infinity are not JSON (RFC 8259 section 6)


_decode: Final = json.JSONDecoder(parse_constant=_no_constant).decode


def _whole(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:  # not isinstance: True is an int
        raise ValueError
    return value


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _seconds(value: object) -> float:
    if type(value) is not float or not 0 <= value < _MAX_SECONDS:
        raise ValueError
    return value


def _text(value: object, most: int) -> str:
    if type(value) is not str or len(value) > most:
        raise ValueError
    if not value.isascii():
        value.encode()  # a lone surrogate, which no database takes, is a UnicodeEncodeError
    return value


def _text_or_none(value: object, most: int) -> str | None:
    return None if value is None else _text(value, most)


def _texts(value: object) -> tuple[str, ...]:
    if type(value) is not list or len(value) > _LIST_ITEMS:
        raise ValueError
    return tuple([_text(each, _SHORT_TEXT) for each in value])


def _moment(value: object) -> float:
    """POSIX seconds of exactly ``2026-09-21T14:13:20.250Z``."""
    text = _text(value, 24)
    if len(text) != 24 or text[19] != "." or text[23] != "Z" or not text.isascii():
        raise ValueError
    thousandths = text[20:23]
    if not thousandths.isdecimal():  # int() would take a sign, a space or an underscore
        raise ValueError
    return (_second(text[:19]) * 1000 + int(thousandths)) / 1000


@lru_cache(maxsize=64)  # records come in bursts
def _second(text: str) -> int:
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    if moment.year < 1970:
        raise ValueError
    return int(moment.timestamp())

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.observe.read import MAX_BYTES, MAX_COUNT, read_line
from egressproxy.observe.record import (
    MAX_LINE_BYTES,
    FlowRecord,
    NameSource,
    Plane,
    to_json_line,
)
from egressproxy.policy.verdict import Action, Pass, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., FlowRecord]

# Cs: a lone surrogate is written as U+FFFD, so it cannot come back; longer ones may be cut.
HOSTILE = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
TEXT_OR_NONE = st.none() | HOSTILE

RECORDS = st.builds(
    FlowRecord,
    time=st.integers(0, 253402300798999).map(lambda ms: ms / 1000),
    flow_id=HOSTILE,
    src_port=st.integers(0, 65535),
    action=st.sampled_from(Action),
    reason=st.sampled_from(Reason),
    plane=st.sampled_from(Plane),
    protocol=HOSTILE.map(lambda text: text[:5]),
    src_ip=HOSTILE.map(lambda text: text[:10]),
    dst_port=st.integers(0, 65535),
    rule=TEXT_OR_NONE,
    decided_by=st.sampled_from(Pass),
    would_deny=st.booleans(),
    source_group=TEXT_OR_NONE,
    dst_ip=TEXT_OR_NONE.map(lambda text: text and text[:10]),
    name=TEXT_OR_NONE,
    name_source=st.sampled_from(NameSource),
    alpn=st.lists(HOSTILE.map(lambda text: text[:5]), max_size=8).map(tuple),
    tls_versions=st.lists(st.sampled_from(["1.3", "1.2", "0x3a3a"]), max_size=8).map(tuple),
    ech=st.booleans(),
    hello_split=st.booleans(),
    dialled_ip=TEXT_OR_NONE.map(lambda text: text and text[:10]),
    destination_match=st.sampled_from(["yes", "no", "unknown"]),
    close_reason=st.sampled_from(["", "open", "refused"]),
    policy=st.sampled_from(["", "ab" * 32]),
    note=HOSTILE,
    bytes_up=st.integers(0, MAX_BYTES),
    bytes_down=st.integers(0, MAX_BYTES),
    requests=st.integers(0, MAX_COUNT),
    duration_s=st.integers(0, 10**12).map(lambda us: us / 1e6),
    count=st.integers(0, MAX_COUNT),
)


@given(RECORDS)
def test_what_was_written_is_read(record: FlowRecord) -> None:
    line = to_json_line(record)
    back = read_line(line)
    assert back == record
    assert back is not None
    assert to_json_line(back) == line
    assert read_line(line.rstrip(b"\n")) == record


@given(st.binary(max_size=2 * MAX_LINE_BYTES))
def test_no_bytes_raise(line: bytes) -> None:
    assert read_line(line) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.data(), RECORDS, JSON)
def test_no_value_raises_and_what_is_accepted_can_be_written(
    data: st.DataObject, record: FlowRecord, value: object
) -> None:
    body = json.loads(to_json_line(record))
    body[data.draw(st.sampled_from(sorted(body)))] = value
    read = read_line(json.dumps(body).encode())
    assert read is None or read_line(to_json_line(read)) is not None


def test_cut_texts_are_read_as_they_were_cut(make_record: Make) -> None:
    record = make_record(
        name="n" * 10_000,
        rule="r" * 10_000,
        note="\N{RIGHT-TO-LEFT OVERRIDE}" * 500,
        alpn=tuple("abcdefghijkl"),
        close_reason="x" * 500,
    )
    back = read_line(to_json_line(record))
    assert back is not None
    assert back.name == "n" * 255 + "…"
    assert back.alpn == (*"abcdefgh", "…")
    assert back.note.endswith("…")


def test_keys_of_a_later_version_are_ignored(make_record: Make) -> None:
    record = make_record()
    body = json.loads(to_json_line(record)) | {"colour": {"of": ["the", "hello"]}}
    assert read_line(json.dumps(body).encode()) == record


REFUSED: dict[str, dict[str, Any]] = {
    "schema of another": {"schema": 2},
    "schema is a flag": {"schema": True},
    "schema is a float": {"schema": 1.0},
    "time without thousandths": {"time": "2026-09-21T14:13:20Z"},
    "time of another zone": {"time": "2026-09-21T14:13:20.25+1"},
    "time with a sign in its thousandths": {"time": "2026-09-21T14:13:20.+25Z"},
    "time with an underscore": {"time": "2026-09-21T14:13:20.2_5Z"},
    "time with arabic digits": {"time": "2026-09-21T14:13:20.\u0662\u0665\u0660Z"},
    "time before 1970": {"time": "1969-12-31T23:59:59.000Z"},
    "a month too many": {"time": "2026-13-21T14:13:20.250Z"},
    "time is a number": {"time": 1790000000.25},
    "unknown action": {"action": "maybe"},
    "action is a list": {"action": ["deny"]},
    "unknown reason": {"reason": "mood"},
    "unknown plane": {"plane": "astral"},
    "unknown pass": {"pass": "third"},
    "unknown name source": {"name_source": "guess"},
    "name is a number": {"name": 5},
    "name is too long": {"name": "n" * 257},
    "name has a lone surrogate": {"name": "\ud800"},
    "rule is too long": {"rule": "r" * 129},
    "source missing": {"src_ip": None},
    "port beyond 16 bits": {"dst_port": 65536},
    "port below zero": {"dst_port": -1},
    "port is a float": {"dst_port": 443.0},
    "port is a flag": {"dst_port": True},
    "count beyond belief": {"count": MAX_COUNT + 1},
    "octets beyond belief": {"bytes_up": MAX_BYTES + 1},
    "octets below zero": {"bytes_down": -1},
    "flag is a number": {"would_deny": 1},
    "flag is null": {"ech": None},
    "flag is a text": {"hello_split": "false"},
    "alpn is a text": {"alpn": "h2"},
    "alpn has a number": {"alpn": [2]},
    "alpn has too many": {"alpn": ["h2"] * 10},
    "duration is not finite": {"duration_s": math.inf},
    "duration is no number": {"duration_s": math.nan},
    "duration runs backwards": {"duration_s": -1.0},
    "duration is whole": {"duration_s": 1},
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_refused_values(make_record: Make, change: dict[str, Any]) -> None:
    body = json.loads(to_json_line(make_record()))
    assert read_line(json.dumps(body).encode()) is not None
    assert read_line(json.dumps(body | change).encode()) is None


ADDED = {"hello_split"}
"""Later than schema 1: an older gateway's lines do not have them."""


@pytest.mark.parametrize("key", json.loads(to_json_line(FlowRecord(
    0.0, "", 0, Action.DENY, Reason.NO_SNI, Plane.EXPLICIT, "tls", "10.0.0.1", 443
))))  # fmt: skip
def test_every_key_is_wanted(make_record: Make, key: str) -> None:
    body = json.loads(to_json_line(make_record()))
    del body[key]
    if key in ADDED:
        assert read_line(json.dumps(body).encode()) == make_record()
    else:
        assert read_line(json.dumps(body).encode()) is None


LINES = {
    "empty": b"",
    "a newline": b"\n",
    "another value": b"[]",
    "not JSON": b"schema=1",
    "deeply nested": b"[" * 4000,
    "deeply nested value": b'{"schema":' * 400,
    "a number of many digits": b'{"schema":' + b"1" * 4000 + b"}",
    "UTF-16, which json.loads would detect": "{}".encode("utf-16"),
    "UTF-8": '{"name":"é"}'.encode(),
    "one megabyte": b'{"schema":1' + b" " * (1 << 20) + b"}",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_refused_lines(line: bytes) -> None:
    assert read_line(line) is None


def test_a_line_longer_than_any_of_ours(make_record: Make) -> None:
    body = json.loads(to_json_line(make_record()))
    fits = json.dumps(body).encode().ljust(MAX_LINE_BYTES)
    assert read_line(fits) is not None
    assert read_line(fits + b" ") is None

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egressproxy.observe.record import (
    MAX_LINE_BYTES,
    FlowRecord,
    NameSource,
    Plane,
    forget_common,
    to_json_line,
)
from egressproxy.policy.verdict import Action, Pass, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., FlowRecord]

FIELDS = """
    schema time flow_id action reason rule pass would_deny plane protocol src_ip src_port
    source_group dst_ip dst_port name name_source alpn tls_versions ech hello_split
    dialled_ip destination_match bytes_up bytes_down requests duration_s close_reason policy count
    note
"""

TEXTS = """
    flow_id protocol src_ip rule source_group dst_ip name dialled_ip note destination_match
    close_reason policy
"""


def read(record: FlowRecord) -> dict[str, Any]:
    line = to_json_line(record)
    assert line.endswith(b"\n")
    assert line.isascii()
    body: dict[str, Any] = json.loads(line, parse_constant=pytest.fail)
    return body


def test_every_field_in_order(make_record: Make) -> None:
    record = make_record(
        action=Action.ALLOW,
        reason=Reason.RULE,
        rule="aks/core#mcr",
        decided_by=Pass.APPLICATION,
        source_group="cluster-a",
        alpn=("konnectivity", "h2"),
        tls_versions=("1.3", "1.2"),
        ech=True,
        hello_split=True,
        dialled_ip="20.1.2.4",
        destination_match="no",
        bytes_up=1,
        bytes_down=2,
        requests=3,
        duration_s=0.25,
        close_reason="eof",
        policy="ab" * 32,
        note="harmless",
    )
    body = read(record)
    assert list(body) == FIELDS.split()
    assert body == {
        "schema": 1,
        "time": "2026-09-21T14:13:20.250Z",
        "flow_id": "0-1",
        "action": "allow",
        "reason": "rule",
        "rule": "aks/core#mcr",
        "pass": "application",
        "would_deny": False,
        "plane": "transparent",
        "protocol": "tls",
        "src_ip": "10.240.0.4",
        "src_port": 50123,
        "source_group": "cluster-a",
        "dst_ip": "20.1.2.3",
        "dst_port": 443,
        "name": "evil.example",
        "name_source": "sni",
        "alpn": ["konnectivity", "h2"],
        "tls_versions": ["1.3", "1.2"],
        "ech": True,
        "hello_split": True,
        "dialled_ip": "20.1.2.4",
        "destination_match": "no",
        "bytes_up": 1,
        "bytes_down": 2,
        "requests": 3,
        "duration_s": 0.25,
        "close_reason": "eof",
        "policy": "ab" * 32,
        "count": 1,
        "note": "harmless",
    }


def test_what_is_unknown_is_null_or_empty(make_record: Make) -> None:
    body = read(make_record(name=None, dst_ip=None, name_source=NameSource.NONE))
    assert body["name"] is body["dst_ip"] is body["rule"] is body["dialled_ip"] is None
    assert body["alpn"] == []
    assert body["note"] == ""
    assert body["destination_match"] == "unknown"


VARIED: dict[str, tuple[Any, ...]] = {
    "action": (Action.ALLOW, Action.DENY),
    "reason": (Reason.RULE, Reason.NO_SNI),
    "rule": ("a", "b", None),
    "decided_by": (Pass.NETWORK, Pass.APPLICATION),
    "would_deny": (False, True),
    "plane": (Plane.EXPLICIT, Plane.TRANSPARENT),
    "protocol": ("tls", "http"),
    "src_ip": ("10.0.0.1", "10.0.0.2"),
    "source_group": (None, "a"),
    "dst_ip": ("20.0.0.1", None),
    "dst_port": (443, 444),
    "name": ("a.example", "b.example", None),
    "name_source": (NameSource.SNI, NameSource.NONE),
    "alpn": (("h2",), ()),
    "tls_versions": (("1.3",), ("1.2",)),
    "ech": (True, False),
    "hello_split": (True, False),
    "dialled_ip": (None, "20.0.0.1"),
    "destination_match": ("yes", "no"),
    "close_reason": ("open", "idle"),
    "policy": ("00", "11"),
    "note": ("", "harmless"),
}


@pytest.mark.parametrize("field", VARIED)
def test_what_is_kept_of_one_record_is_not_told_of_another(make_record: Make, field: str) -> None:
    values = VARIED[field]
    key = "pass" if field == "decided_by" else field
    for value in (*values, *values):
        told = read(make_record(**{field: value}))[key]
        assert told == (list(value) if isinstance(value, tuple) else value)


HOSTILE = {
    "quotes": ('a","action":"allow', 'a","action":"allow'),
    "backslash": ("a\\", "a\\"),
    "new line": ("a\nb", "a\nb"),
    "terminal colours": ("\x1b[2Ja", "\x1b[2Ja"),
    "delete": ("a\x7f", "a\x7f"),
    "C1 control": ("a\x9b31m", "a\x9b31m"),
    "bidi override": ("a\u202etxt.exe", "a\u202etxt.exe"),
    "line separator": ("a\u2028b\u2029", "a\u2028b\u2029"),
    "astral": ("a\U0001f600", "a\U0001f600"),
    "bytes that were no UTF-8": ("a\udcff.example", "a\ufffd.example"),
    "half a pair": ("\ud83d", "\ufffd"),
    "a pair as two halves": ("\ud83d\ude00", "\U0001f600"),
    "as long as allowed": ("a" * 256, "a" * 256),
    "too long": ("a" * 257, "a" * 255 + "…"),
    "much too long": ("a" * 1_000_000, "a" * 255 + "…"),
    "many escapes": ("\x01" * 256, "\x01" * 41 + "…"),
    "many astrals": ("\U0001f600" * 256, "\U0001f600" * 41 + "…"),
}


@pytest.mark.parametrize(("name", "read_back"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_names(make_record: Make, name: str, read_back: str) -> None:
    line = to_json_line(make_record(name=name))
    assert line.count(b"\n") == 1
    assert not any(byte < 0x20 or byte > 0x7E for byte in line[:-1])
    assert read(make_record(name=name))["name"] == read_back


def test_lists_are_cut(make_record: Make) -> None:
    body = read(make_record(alpn=tuple(f"p{n}" for n in range(1000)), tls_versions=("x" * 1000,)))
    assert body["alpn"] == [*(f"p{n}" for n in range(8)), "…"]
    assert body["tls_versions"] == ["x" * 31 + "…"]


def test_the_longest_line_fits_into_a_pipe_write(make_record: Make) -> None:
    for worst in ('"' * 9999, "\x01" * 9999, "\U0001f600" * 9999, "\ud800" * 9999):
        texts = dict.fromkeys(TEXTS.split(), worst)
        numbers = dict.fromkeys(
            ("src_port", "dst_port", "bytes_up", "bytes_down", "requests", "count"), 2**63
        )
        line = to_json_line(
            make_record(
                **texts,
                **numbers,
                alpn=(worst,) * 99,
                tls_versions=(worst,) * 99,
                duration_s=999_999_999_999.0,
                reason=Reason.DESTINATION_MISMATCH,
            )
        )
        assert len(line) <= MAX_LINE_BYTES
        json.loads(line)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_numbers_that_json_does_not_have(make_record: Make, value: float) -> None:
    body = read(make_record(time=value, duration_s=value))
    assert body["time"] == "1970-01-01T00:00:00.000Z"
    assert body["duration_s"] == 0


MOMENTS = {
    "epoch": (0.0, "1970-01-01T00:00:00.000Z"),
    "rounded": (1.9996, "1970-01-01T00:00:02.000Z"),
    "leap day": (1709164799.5, "2024-02-28T23:59:59.500Z"),
    "after it": (1709164800.0, "2024-02-29T00:00:00.000Z"),
}


@pytest.mark.parametrize(("moment", "text"), MOMENTS.values(), ids=MOMENTS)
def test_time(make_record: Make, moment: float, text: str) -> None:
    assert read(make_record(time=moment))["time"] == text
    assert read(make_record(time=moment))["time"] == text, "also from what was kept"


def test_what_lines_have_in_common_can_be_forgotten(make_record: Make) -> None:
    policy = "".join(["digest-of-", "a-policy"])
    held = sys.getrefcount(policy)
    line = to_json_line(make_record(policy=policy))
    assert sys.getrefcount(policy) > held
    forget_common()
    assert sys.getrefcount(policy) == held
    assert to_json_line(make_record(policy=policy)) == line


def clean(text: str) -> str:
    """What JSON can carry of a text: lone surrogates replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(), max_size=300), st.lists(st.text(st.characters()), max_size=12))
def test_any_text_is_one_line_of_ascii_and_reads_back(
    make_record: Make, text: str, alpn: list[str]
) -> None:
    line = to_json_line(make_record(name=text, alpn=tuple(alpn), note=text, rule=text))
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert len(line.splitlines()) == 1
    assert len(line) <= MAX_LINE_BYTES
    name = json.loads(line)["name"]
    assert name == clean(text) or (name.endswith("…") and clean(text).startswith(name[:-1]))
    if len(text) <= 40:
        assert name == clean(text)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("plane", Plane)
def test_enums_are_written_by_value(make_record: Make, action: Action, plane: Plane) -> None:
    for reason in Reason:
        body = read(make_record(action=action, plane=plane, reason=reason))
        assert (body["action"], body["plane"], body["reason"]) == (
            action.value,
            plane.value,
            reason.value,
        )

"""Messages by the grammar of RFC 5424, whatever is in a record."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.export.syslog_message import Severity, SyslogFormat, octet_counted, severity
from egressproxy.observe.record import FlowRecord, to_json_line
from egressproxy.policy.verdict import Action, Reason
from tests.export.records import record, records

# RFC 5424 section 6, the ABNF of a message with structured data and a message in ASCII.
_ELEMENT = r'\[[!#-<>-\\^-~]{1,32}(?: [!#-<>-\\^-~]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*\]'
MESSAGE = re.compile(
    r"<(?P<priority>[0-9]{1,3})>1 (?P<time>\S+) (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48})"
    rf" (?P<process>[!-~]{{1,128}}) (?P<id>[!-~]{{1,32}}) (?P<data>(?:{_ELEMENT})+|-)"
    r" (?P<text>[ -~]*)",
    re.ASCII,
)


def parsed(message: bytes) -> re.Match[str]:
    found = MESSAGE.fullmatch(message.decode("ascii"))
    assert found is not None, message
    return found


def test_a_message() -> None:
    found = parsed(SyslogFormat("hub-1", "0.1.0").message(record()))
    assert (found["priority"], found["host"], found["app"]) == ("132", "hub-1", "egressproxy")
    assert (found["time"], found["id"]) == ("2026-09-21T14:13:20.250000Z", "default_deny")
    assert found["data"] == (
        '[meta sequenceId="1"][origin software="egressproxy" swVersion="0.1.0"]'
    )
    assert json.loads(found["text"]) == json.loads(to_json_line(record()))


SEVERITIES = {
    "deny": (record(), Severity.WARNING),
    "allow": (record(action=Action.ALLOW, reason=Reason.RULE), Severity.INFORMATIONAL),
    "audit": (record(action=Action.ALLOW, would_deny=True), Severity.NOTICE),
    "error": (record(action=Action.ERROR, reason=Reason.DIAL_FAILED), Severity.ERROR),
}


@pytest.mark.parametrize(("given_record", "expected"), SEVERITIES.values(), ids=SEVERITIES)
def test_severity(given_record: FlowRecord, expected: Severity) -> None:
    assert severity(given_record) is expected


@given(records(), st.text(max_size=300), st.text(max_size=20))
def test_any_record_of_any_gateway(given_record: FlowRecord, gateway: str, version: str) -> None:
    message = SyslogFormat(gateway, version).message(given_record)
    found = parsed(message)
    assert len(message) < 5120
    assert json.loads(found["text"]) == json.loads(to_json_line(given_record))


def test_messages_are_numbered_and_begin_anew() -> None:
    form = SyslogFormat("hub", "1")
    form._sequence = 2147483646
    numbers = [re.findall(rb'sequenceId="(\d+)"', form.message(record()))[0] for _ in range(3)]
    assert numbers == [b"2147483647", b"1", b"2"]


def test_octet_counting() -> None:
    assert octet_counted(b"abc") == b"3 abc"

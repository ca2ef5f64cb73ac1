"""Texts that name a place to export to."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import ServiceError
from egressproxy.export.outlet import (
    AzureTarget,
    OtlpTarget,
    SyslogTarget,
    Target,
    parse_target,
)

GOOD: dict[str, Target] = {
    "azure:/var/log/azure": AzureTarget(Path("/var/log/azure")),
    "azure:C:/odd": AzureTarget(Path("C:/odd")),
    "syslog:udp://10.0.0.5": SyslogTarget("udp", "10.0.0.5", 514),
    "syslog:tcp://siem.example:1514": SyslogTarget("tcp", "siem.example", 1514),
    "syslog:tls://[2001:db8::1]": SyslogTarget("tls", "2001:db8::1", 6514),
    "syslog:tls://siem.example?ca=/etc/ca.pem&cert=/etc/own.pem": SyslogTarget(
        "tls", "siem.example", 6514, Path("/etc/ca.pem"), Path("/etc/own.pem")
    ),
    "syslog:unix:/dev/log": SyslogTarget("unix", "/dev/log"),
    "otlp:http://collector:4318": OtlpTarget("http://collector:4318/v1/logs"),
    "otlp:https://collector/own/path": OtlpTarget("https://collector/own/path"),
}
BAD = (
    "",
    "azure:",
    "azure",
    "syslog:",
    "syslog:unix:",
    "syslog:udp://",
    "syslog:ftp://host",
    "syslog:udp://host:99999",
    "syslog:udp://host/path",
    "syslog:udp://[2001:db8::1",
    "otlp:grpc://host",
    "otlp:host:4318",
    "syslog:udp://host:0",
    "syslog:udp://host?ca=/etc/ca.pem",
    "syslog:tls://host?key=/etc/ca.pem",
    "syslog:tls://host?ca",
    "syslog:tls://host#there",
    "otlp:http://ho st",
    "kafka:host",
)


@pytest.mark.parametrize(("text", "expected"), GOOD.items(), ids=GOOD)
def test_good(text: str, expected: Target) -> None:
    assert parse_target(text) == expected


@pytest.mark.parametrize("text", BAD)
def test_bad(text: str) -> None:
    with pytest.raises(ServiceError, match="no place to export to") as caught:
        parse_target(text)
    assert "syslog:udp|tcp|tls://HOST[:PORT]" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("azure:/var/log/azure", "azure:/var/log/azure"),
        ("syslog:tcp://[2001:db8::1]:1514", "syslog:tcp://[2001:db8::1]:1514"),
        ("syslog:udp://siem.example", "syslog:udp://siem.example:514"),
        ("syslog:unix:/dev/log", "syslog:unix:/dev/log"),
        ("otlp:https://collector/own?key=secret", "otlp:https://collector/own"),
    ],
)
def test_a_place_is_named_without_its_secrets(text: str, expected: str) -> None:
    assert str(parse_target(text)) == expected


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(ServiceError, match="no user or password") as caught:
        parse_target("otlp:http://user:secret@host")
    assert "secret" not in str(caught.value)
    assert "OTEL_EXPORTER_OTLP_HEADERS" in caught.value.hint


@given(st.sampled_from(["syslog:", "otlp:", "azure:", ""]), st.text(max_size=40))
def test_any_text_is_a_place_or_an_error(kind: str, rest: str) -> None:
    with suppress(ServiceError):
        parse_target(kind + rest)

"""``host[:port]``: one reading or an error with its reason."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import HttpError
from egressproxy.names import DnsName
from egressproxy.wire.fault import Fault
from egressproxy.wire.http_authority import Authority, parse_authority


@pytest.mark.parametrize(
    ("text", "expected", "has_port"),
    [
        pytest.param(b"example.com", ("example.com", None, 80), False, id="name"),
        pytest.param(b"EXAMPLE.com.", ("example.com", None, 80), False, id="case-and-root-dot"),
        pytest.param(b"example.com:8080", ("example.com", None, 8080), True, id="port"),
        pytest.param(b"example.com:65535", ("example.com", None, 65535), True, id="last-port"),
        pytest.param(b"_srv.example.com", ("_srv.example.com", None, 80), False, id="underscore"),
        pytest.param(b"10.0.0.1", (None, "10.0.0.1", 80), False, id="ipv4"),
        pytest.param(b"10.0.0.1:81", (None, "10.0.0.1", 81), True, id="ipv4-port"),
        pytest.param(b"[2001:DB8:0::1]", (None, "2001:db8::1", 80), False, id="ipv6"),
        pytest.param(b"[2001:db8::1]:81", (None, "2001:db8::1", 81), True, id="ipv6-port"),
        pytest.param(b"[::ffff:10.0.0.1]", (None, "10.0.0.1", 80), False, id="ipv4-mapped"),
    ],
)
def test_one_reading(
    text: bytes, expected: tuple[str | None, str | None, int], has_port: bool
) -> None:
    assert parse_authority(text, 80) == (expected, has_port)


@pytest.mark.parametrize(
    ("text", "fault", "status"),
    [
        pytest.param(b"", Fault.AMBIGUOUS_REQUEST, 400, id="empty"),
        pytest.param(b"a.example,b.example", Fault.AMBIGUOUS_REQUEST, 400, id="list"),
        pytest.param(b"a.example b.example", Fault.AMBIGUOUS_REQUEST, 400, id="space"),
        pytest.param(b"user@a.example", Fault.AMBIGUOUS_REQUEST, 400, id="userinfo"),
        pytest.param(b"user:80@a.example", Fault.AMBIGUOUS_REQUEST, 400, id="userinfo-as-port"),
        pytest.param(b"a.example/b", Fault.AMBIGUOUS_REQUEST, 400, id="path"),
        pytest.param(b"a.example\\b", Fault.AMBIGUOUS_REQUEST, 400, id="backslash"),
        pytest.param(b"a%2eexample", Fault.AMBIGUOUS_REQUEST, 400, id="percent"),
        pytest.param(b"\xc3\xa9.example", Fault.AMBIGUOUS_REQUEST, 400, id="not-ascii"),
        pytest.param(b"a.example:", Fault.AMBIGUOUS_REQUEST, 400, id="empty-port"),
        pytest.param(b"a.example:0", Fault.AMBIGUOUS_REQUEST, 400, id="port-zero"),
        pytest.param(b"a.example:65536", Fault.AMBIGUOUS_REQUEST, 400, id="port-too-high"),
        pytest.param(b"a.example:000080", Fault.AMBIGUOUS_REQUEST, 400, id="port-too-long"),
        pytest.param(b"a.example:+80", Fault.AMBIGUOUS_REQUEST, 400, id="port-plus"),
        pytest.param(b"a.example:-80", Fault.AMBIGUOUS_REQUEST, 400, id="port-minus"),
        pytest.param(b"a.example:8_0", Fault.AMBIGUOUS_REQUEST, 400, id="port-underscore"),
        pytest.param(b"a.example:80:80", Fault.AMBIGUOUS_REQUEST, 400, id="two-ports"),
        pytest.param(b":80", Fault.AMBIGUOUS_REQUEST, 400, id="port-alone"),
        pytest.param(b".", Fault.AMBIGUOUS_REQUEST, 400, id="root"),
        pytest.param(b"a..example", Fault.AMBIGUOUS_REQUEST, 400, id="empty-label"),
        pytest.param(b"a" * 400, Fault.AMBIGUOUS_REQUEST, 400, id="too-long"),
        pytest.param(b"2001:db8::1", Fault.AMBIGUOUS_REQUEST, 400, id="ipv6-without-brackets"),
        pytest.param(b"[2001:db8::1", Fault.AMBIGUOUS_REQUEST, 400, id="bracket-open"),
        pytest.param(b"[2001:db8::1]x", Fault.AMBIGUOUS_REQUEST, 400, id="after-bracket"),
        pytest.param(b"[fe80::1%25eth0]", Fault.AMBIGUOUS_REQUEST, 400, id="zone"),
        pytest.param(b"[fe80::1%eth0]", Fault.AMBIGUOUS_REQUEST, 400, id="zone-raw"),
        pytest.param(b"[v1.x]", Fault.AMBIGUOUS_REQUEST, 400, id="ipvfuture"),
        pytest.param(b"[10.0.0.1]", Fault.AMBIGUOUS_REQUEST, 400, id="ipv4-in-brackets"),
        pytest.param(b"[\xff]", Fault.AMBIGUOUS_REQUEST, 400, id="brackets-not-ascii"),
        pytest.param(b"127.1", Fault.IP_LITERAL, 403, id="short-ipv4"),
        pytest.param(b"2130706433", Fault.IP_LITERAL, 403, id="decimal-ipv4"),
        pytest.param(b"0x7f.0.0.1", Fault.IP_LITERAL, 403, id="hex-ipv4"),
        pytest.param(b"010.0.0.1", Fault.IP_LITERAL, 403, id="octal-ipv4"),
        pytest.param(b"10.0.0.1.", Fault.IP_LITERAL, 403, id="ipv4-root-dot"),
    ],
)
def test_refused(text: bytes, fault: Fault, status: int) -> None:
    with pytest.raises(HttpError) as caught:
        parse_authority(text, 80)
    assert (caught.value.code, caught.value.status) == (fault, status)


def test_a_port_can_be_mandatory() -> None:
    assert parse_authority(b"a.example:443", None)[0] == ("a.example", None, 443)
    with pytest.raises(HttpError) as caught:
        parse_authority(b"a.example", None)
    assert caught.value.code == Fault.AMBIGUOUS_REQUEST


@pytest.mark.parametrize(
    ("authority", "text"),
    [
        (Authority(DnsName("a.example"), None, 80), "a.example:80"),
        (Authority(None, "10.0.0.1", 81), "10.0.0.1:81"),
        (Authority(None, "2001:db8::1", 80), "[2001:db8::1]:80"),
    ],
)
def test_written_as_it_is_read(authority: Authority, text: str) -> None:
    assert str(authority) == text
    assert parse_authority(text.encode(), None) == (authority, True)


@given(st.binary(max_size=40) | st.text("ab.:[]0159@,% ", max_size=20).map(str.encode))
def test_any_bytes_are_read_once_or_refused(text: bytes) -> None:
    with contextlib.suppress(HttpError):
        authority, _ = parse_authority(text, 80)
        assert (authority.name is None) != (authority.address is None)
        assert parse_authority(str(authority).encode(), None)[0] == authority

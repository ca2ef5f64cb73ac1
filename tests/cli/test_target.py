from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.cli.target import read_flow, split_item, split_port
from egressproxy.errors import EgressproxyError
from egressproxy.names import DnsName
from egressproxy.policy.verdict import Flow, Reason
from egressproxy.ports import Protocol

TLS, HTTP, TCP, UDP = Protocol.TLS, Protocol.HTTP, Protocol.TCP, Protocol.UDP
A, SIX = "20.1.2.3", "2001:db8::1"

READ = {
    "GitHub.com.": (None, Flow(TLS, "", 443, DnsName("github.com"))),
    "github.com:80": (None, Flow(HTTP, "", 80, DnsName("github.com"))),
    "github.com:8443": (None, Flow(TLS, "", 8443, DnsName("github.com"))),
    "github.com": (HTTP, Flow(HTTP, "", 80, DnsName("github.com"))),
    "ntp.ubuntu.com:123": (UDP, Flow(UDP, "", 123, DnsName("ntp.ubuntu.com"))),
    "20.1.2.3:443": (None, Flow(TCP, "", 443, dst=A)),
    "[2001:db8::1]:443": (None, Flow(TCP, "", 443, dst=SIX)),
    "[2001:db8::1]": (TLS, Flow(TLS, "", 443, dst=SIX, fault=Reason.NO_SNI)),
    "2001:db8::1": (HTTP, Flow(HTTP, "", 80, dst=SIX, fault=Reason.IP_LITERAL)),
}


@pytest.mark.parametrize(("text", "protocol", "expected"), [(t, *e) for t, e in READ.items()])
def test_read(text: str, protocol: Protocol | None, expected: Flow) -> None:
    assert read_flow(*split_port(text), protocol, "") == expected
    assert read_flow(*split_port(text), protocol, "10.0.0.1") == expected._replace(src="10.0.0.1")


@pytest.mark.parametrize(
    ("text", "protocol", "source", "complaint"),
    [
        ("https://github.com/", None, "", "without scheme and path"),
        ("github.com:0", None, "", "is not a port"),
        ("github.com:65536", None, "", "is not a port"),
        ("github.com:٤٤٣", None, "", "is not a port"),
        ("github.com:", None, "", "is not a port"),
        ("20.1.2.3", None, "", "tcp has no default port"),
        ("ntp.ubuntu.com", UDP, "", "write ntp.ubuntu.com:PORT"),
        (SIX, None, "", "write [2001:db8::1]:PORT"),
        ("[2001:db8::1]", None, "", "write [2001:db8::1]:PORT"),
        ("2001:db8::1:443", None, "", "write [2001:db8::1:443]:PORT, or [2001:db8::1]:443"),
        ("[2001:db8::1:443]", None, "", "write [2001:db8::1:443]:PORT)"),
        ("2001:db8::1:65535", UDP, "", "write [2001:db8::1]:65535"),
        ("2001:db8:0:0:0:0:0:1:443", None, "", "write [2001:db8:0:0:0:0:0:1]:443"),
        ("[2001:db8::1", None, "", "write [2001:db8::1]:443"),
        ("a b", None, "", "not a host name"),
        ("1.2.3", None, "", "is an address"),
        ("", None, "", "empty name"),
        ("github.com", None, "cluster-a", "is no source address"),
    ],
)
def test_complaints(text: str, protocol: Protocol | None, source: str, complaint: str) -> None:
    with pytest.raises(EgressproxyError) as caught:
        read_flow(*split_port(text), protocol, source)
    assert complaint in str(caught.value)


@given(st.text(max_size=30), st.text(max_size=10))
def test_any_text_is_read_or_complained_about(text: str, source: str) -> None:
    try:
        found = read_flow(*split_port(text), None, source)
    except EgressproxyError:
        return
    assert found.name or found.dst


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("443", ("443", None)),
        ("0", ("0", None)),  # read_flow says that it is none
        ("https", ("443", TLS)),
        ("http:8080", ("8080", HTTP)),
        ("udp:123", ("123", UDP)),
    ],
)
def test_ports_as_policies_write_them(text: str, expected: tuple[str, Protocol | None]) -> None:
    assert split_item(text, None) == expected
    assert split_item(text, TCP) == (expected[0], expected[1] or TCP)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("tcp:1-2", "'tcp:1-2' is more than one port"), ("sctp:1", "'sctp:1' is not a port item")],
)
def test_no_one_port(text: str, complaint: str) -> None:
    with pytest.raises(EgressproxyError, match=complaint):
        split_item(text, None)

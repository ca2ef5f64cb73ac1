"""Texts of the command line to values, or to an error with a hint."""

from __future__ import annotations

import pytest

from egressproxy.errors import EgressproxyError, ServiceError
from egressproxy.planes.context import AllowRecords
from egressproxy.service.options import (
    Endpoint,
    parse_allows,
    parse_endpoint,
    parse_number,
    parse_override,
    parse_overrides,
    parse_switch,
    parse_workers,
)


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("127.0.0.1:3128", "127.0.0.1", 3128),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::1]:80", "::1", 80),
        ("[2001:DB8:0::1]:80", "2001:db8::1", 80),
        (":8080", "::", 8080),
        ("[::]:8080", "::", 8080),
    ],
)
def test_endpoint(text: str, address: str, port: int) -> None:
    assert parse_endpoint(text) == Endpoint(address, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "3128",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:+1",
        "127.0.0.1:٣",
        "localhost:80",
        "::1:80",
        "[fe80::1%eth0]:80",
        "1.2.3:80",
    ],
)
def test_no_endpoint(text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_endpoint(text)
    assert "3128" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("10.0.0.1", Endpoint("10.0.0.1", 53)),
        ("10.0.0.1:5353", Endpoint("10.0.0.1", 5353)),
        ("2001:db8::1", Endpoint("2001:db8::1", 53)),
        ("[2001:db8::1]", Endpoint("2001:db8::1", 53)),
        ("[2001:db8::1]:54", Endpoint("2001:db8::1", 54)),
    ],
)
def test_dns_server(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text, default_port=53) == endpoint


@pytest.mark.parametrize("text", ["dns.example", "10.0.0.1:x", "10.0.0", ""])
def test_no_dns_server(text: str) -> None:
    with pytest.raises(ServiceError):
        parse_endpoint(text, default_port=53)


def test_endpoint_text_can_be_read_again() -> None:
    for text in ("127.0.0.1:3128", "[::1]:80"):
        assert str(parse_endpoint(text)) == text


@pytest.mark.parametrize(("text", "workers"), [("auto", 3), ("1", 1), ("256", 256)])
def test_workers(text: str, workers: int) -> None:
    assert parse_workers(text, 3) == workers


@pytest.mark.parametrize("text", ["0", "257", "-1", "many", "", "1.5", "²"])
def test_no_workers(text: str) -> None:
    with pytest.raises(ServiceError):
        parse_workers(text, 3)


@pytest.mark.parametrize(
    ("text", "allows"),
    [
        ("none", (AllowRecords.NONE, 1)),
        ("all", (AllowRecords.ALL, 1)),
        ("1/100", (AllowRecords.SAMPLE, 100)),
    ],
)
def test_allows(text: str, allows: tuple[AllowRecords, int]) -> None:
    assert parse_allows(text) == allows


@pytest.mark.parametrize("text", ["", "sample", "1/0", "2/3", "1/-1", "100", "1/1/1"])
def test_no_allows(text: str) -> None:
    with pytest.raises(ServiceError):
        parse_allows(text)


def test_overrides_collect_addresses_in_order() -> None:
    items = ("A.example.=192.0.2.1", "b.example=2001:DB8::1", "a.example=192.0.2.2")
    assert parse_overrides(map(parse_override, items)) == {
        "a.example": ("192.0.2.1", "192.0.2.2"),
        "b.example": ("2001:db8::1",),
    }


@pytest.mark.parametrize("item", ["a.example", "=192.0.2.1", "a.example=b", "1.2.3.4=1.2.3.4"])
def test_no_overrides(item: str) -> None:
    with pytest.raises(EgressproxyError):
        parse_override(item)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("12", 12), ("0x65", 101)])
def test_number(text: str, number: int) -> None:
    assert parse_number(text, low=0, high=200) == number


@pytest.mark.parametrize("text", ["", "-1", "201", "1e1", "0x", "1_0", "9" * 5000])
def test_no_number(text: str) -> None:
    with pytest.raises(ServiceError, match="not a number"):
        parse_number(text, low=0, high=200)


def test_switch() -> None:
    assert parse_switch("True")
    assert not parse_switch("false")
    with pytest.raises(ServiceError):
        parse_switch("yes")

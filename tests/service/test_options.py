"""Texts of the command line to values, or to an error with a hint."""

from __future__ import annotations

import pytest

from egressproxy.errors import EgressproxyError, ServiceError
from egressproxy.planes.context import AllowRecords
from egressproxy.service.options import (
    Endpoint,
    host_name,
    parse_allows,
    parse_endpoint,
    parse_gateway,
    parse_newly_denied,
    parse_number,
    parse_override,
    parse_overrides,
    parse_store,
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


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("none", None),
        ("/var/lib/egressproxy/review.db", "/var/lib/egressproxy/review.db"),
        ("review.db", "review.db"),
        ("postgresql://u:secret@db/review", "postgresql://u:secret@db/review"),
    ],
)
def test_review_store(text: str, place: str | None) -> None:
    assert parse_store(text) == place


def test_store_of_another_kind_is_refused_without_its_password() -> None:
    with pytest.raises(ServiceError, match="unknown kind") as caught:
        parse_store("mysql://u:secret@db/review")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", " ", "a" * 65, "gw\n1", "gw\x1b[1m", "gäteway"])
def test_a_gateway_has_a_printable_name(text: str) -> None:
    with pytest.raises(ServiceError, match="no name for a gateway"):
        parse_gateway(text)
    assert parse_gateway(" gw-1 ") == "gw-1"


def test_a_host_name_is_always_fit_for_a_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, expected in (("hub-1", "hub-1"), ("é", "gateway"), ("x" * 300, "x" * 64)):
        monkeypatch.setattr("socket.gethostname", lambda name=name: name)
        assert host_name() == expected
        assert parse_gateway(host_name()) == expected


def test_newly_denied() -> None:
    assert parse_newly_denied("none") is None
    assert parse_newly_denied("0") == 0
    with pytest.raises(ServiceError, match="not a number"):
        parse_newly_denied("-1")

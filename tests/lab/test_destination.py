"""Where an allowed name is dialled: its own addresses, whatever the client says."""

from __future__ import annotations

import json
import ssl

import pytest

from lab import sites
from lab.clients import Clients, Kind
from lab.gateway import EXPLICIT_PORT, Gateway
from lab.tls_client import Offer, open_tls

pytestmark = pytest.mark.netns

EVIL = sites.ELSEWHERE.addresses[0]
CONNECT = b"CONNECT www.contoso.example:443 HTTP/1.1\r\nHost: www.contoso.example:443\r\n\r\n"
CONTOSO = sites.CONTOSO.addresses


def _reached(gateway: Gateway, name: str, address: str, *, source: str = "") -> str:
    """The server address that a TLS connection to ``address`` under ``name`` comes out at."""
    lab = gateway.lab
    seen = lab.events.mark()
    connection = lab.net.spoke.connect(address, 443, source=source)
    with open_tls(connection, Offer(name), lab.authority.ca_file) as client:
        client.handshake()
        event = lab.events.wait(lambda e: e.get("hello") == client.hello.hex(), skip=seen)
    return str(event["local"])


def test_spoofed_name_goes_to_the_names_own_address(either: Gateway) -> None:
    mark = either.records.mark()
    assert _reached(either, "www.contoso.example", EVIL) in CONTOSO
    record = either.record(skip=mark, name="www.contoso.example", action="allow")
    assert (record["dst_ip"], record["destination_match"]) == (EVIL, "no")
    assert record["dialled_ip"] in CONTOSO


def test_strict_refuses_another_address(either: Gateway) -> None:
    mark = either.records.mark()
    with pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
        _reached(either, "strict.contoso.example", EVIL)
    record = either.record(skip=mark, name="strict.contoso.example")
    assert (record["action"], record["reason"]) == ("deny", "destination_mismatch")


@pytest.mark.parametrize("address", CONTOSO, ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("name", ["strict.contoso.example", "prefer.contoso.example"])
def test_the_clients_own_address_is_dialled(either: Gateway, name: str, address: str) -> None:
    mark = either.records.mark()
    assert _reached(either, name, address) == address
    assert either.record(skip=mark, name=name)["destination_match"] == "yes"


def test_prefer_original_falls_back(gw: Gateway) -> None:
    assert _reached(gw, "prefer.contoso.example", EVIL) in CONTOSO


@pytest.mark.parametrize("name", ["v4only.contoso.example", "v6only.contoso.example"])
def test_one_family_is_enough(either: Gateway, name: str) -> None:
    """A client of either family reaches a name that has only the other."""
    assert _reached(either, name, EVIL) == sites.PINNED[name][0]
    assert _reached(either, name, sites.ELSEWHERE.addresses[1]) == sites.PINNED[name][0]


@pytest.mark.parametrize(
    "name", ["loopback.contoso.example", "metadata.contoso.example", "gateway.contoso.example"]
)
def test_inside_addresses_are_never_dialled(gw: Gateway, name: str) -> None:
    mark = gw.records.mark()
    with pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
        _reached(gw, name, EVIL)
    record = gw.record(skip=mark, name=name)
    assert (record["action"], record["reason"]) == ("deny", "forbidden_address")


def test_missing_name_is_an_error_not_a_deny(gw: Gateway) -> None:
    gw.apply_policy(
        gw.policy_file.read_text() + "  - {name: gone, to: [a.invalid], ports: [https]}\n"
    )
    mark = gw.records.mark()
    lab = gw.lab
    connection = lab.net.spoke.connect(EVIL, 443)
    with (
        open_tls(connection, Offer("a.invalid"), lab.authority.ca_file) as client,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        client.handshake()
    record = gw.record(skip=mark, name="a.invalid")
    assert (record["action"], record["reason"]) == ("error", "resolve_failed")


def test_sources_are_told_apart(either: Gateway) -> None:
    name = "second.fabrikam.example"
    assert _reached(either, name, EVIL, source=sites.SPOKE_SECOND[0]) in sites.ELSEWHERE.addresses
    mark = either.records.mark()
    with pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
        _reached(either, name, EVIL)
    record = either.record(skip=mark, name=name, src_ip=sites.SPOKE_NODE[0])
    assert (record["action"], record["reason"]) == ("deny", "default_deny")


def test_connect_name_and_sni_must_agree(gw: Gateway) -> None:
    mark = gw.records.mark()
    lab = gw.lab
    host, port = sites.HUB_INSIDE[0], EXPLICIT_PORT
    tunnel = lab.net.spoke.connect(host, port)
    tunnel.sendall(CONNECT)
    assert tunnel.recv(4096).startswith(b"HTTP/1.1 200 ")
    with (
        open_tls(tunnel, Offer("mcr.microsoft.com"), lab.authority.ca_file) as client,
        pytest.raises(ssl.SSLError, match="ACCESS_DENIED"),
    ):
        client.handshake()
    record = gw.record(skip=mark, reason="host_mismatch")
    assert (record["action"], record["plane"]) == ("deny", "explicit")


def test_port_of_an_application_rule_is_judged_too(either: Gateway, clients: Clients) -> None:
    done = clients.fetch(Kind.CURL, "https://www.contoso.example:8443/.lab/hello")
    assert json.loads(done.stdout)["port"] == 8443
    done = clients.fetch(Kind.CURL, "https://mcr.microsoft.com:8443/")
    assert "access denied" in done.text

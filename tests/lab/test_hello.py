"""Shapes of ClientHello on a real wire: any split of segments and records, and none at all."""

from __future__ import annotations

import json
import ssl
import time
from contextlib import suppress

import pytest

from lab import policies, sites
from lab.gateway import Gateway
from lab.tls_client import Offer, alert_of, client_hello, open_tls

pytestmark = pytest.mark.netns

ACCESS_DENIED = 49  # RFC 8446 section 6.2
NAME = "www.contoso.example"
KONNECTIVITY = ("konnectivity", "h2")
MANY = tuple(f"protocol-{number:04}" for number in range(400))


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("offer", "pieces"),
    [
        pytest.param(Offer(sites.CLUSTER, KONNECTIVITY), (), id="konnectivity"),
        pytest.param(Offer(sites.CLUSTER, KONNECTIVITY, record_bytes=1), (), id="1-byte-records"),
        pytest.param(Offer(sites.CLUSTER, KONNECTIVITY, record_bytes=7), (3,), id="small-records"),
        pytest.param(Offer(sites.CLUSTER, (*KONNECTIVITY, *MANY)), (), id="many-segments"),
        pytest.param(Offer(sites.CLUSTER, KONNECTIVITY), (1,) * 120, id="1-byte-segments"),
    ],
)
def test_hello_arrives_byte_for_byte(
    either: Gateway, offer: Offer, pieces: tuple[int, ...], family: int
) -> None:
    lab = either.lab
    mark = either.records.mark()
    connection = lab.net.spoke.connect(sites.ELSEWHERE.addresses[family], 443)
    with open_tls(connection, offer, lab.authority.ca_file, pieces=pieces) as client:
        assert client.handshake() == "konnectivity"
        seen = json.loads(client.read_line())
        assert seen["hello"] == client.hello.hex()
        assert seen["local"] in sites.API_SERVER.addresses
        client.send(b"tunnel")
        assert client.read() == b"tunnel"
    record = either.record(skip=mark, name=sites.CLUSTER, action="allow")
    assert record["alpn"][:2] == list(KONNECTIVITY)
    assert record["bytes_up"] > len(client.hello)


def test_client_certificate_reaches_the_server(gw: Gateway) -> None:
    lab = gw.lab
    agent = lab.authority.issue(["konnectivity-agent"], stem="agent", client=True)
    offer = Offer(sites.CLUSTER, KONNECTIVITY, client_certificate=agent)
    connection = lab.net.spoke.connect(sites.ELSEWHERE.addresses[0], 443)
    with open_tls(connection, offer, lab.authority.ca_file) as client:
        client.handshake()
        assert json.loads(client.read_line())["client_certificate"] == "konnectivity-agent"


def test_slow_client_is_served(gw: Gateway) -> None:
    """A hello that takes half of the time it may have, a byte now and then."""
    lab = gw.lab
    client = client_hello(Offer(NAME), lab.authority.ca_file)
    client.connection.close()
    client.connection = lab.net.spoke.connect(sites.CONTOSO.addresses[0], 443)
    with client:
        for start in range(20):
            client.connection.sendall(client.hello[start : start + 1])
            time.sleep(0.05)
        client.connection.sendall(client.hello[20:])
        client.handshake()


@pytest.mark.parametrize("sent", [0, 3, 40], ids=["nothing", "header", "half"])
def test_hello_that_never_ends_times_out(gw: Gateway, sent: int) -> None:
    lab = gw.lab
    mark = gw.records.mark()
    hello = client_hello(Offer(NAME), lab.authority.ca_file)
    hello.connection.close()
    with lab.net.spoke.connect(sites.CONTOSO.addresses[0], 443) as connection:
        connection.sendall(hello.hello[:sent])
        with suppress(ConnectionResetError):  # no byte came, so there is nobody to tell in TLS
            assert alert_of(connection.recv(64)) == ACCESS_DENIED
        record = gw.record(skip=mark, reason="hello_timeout")
    assert record["action"] == "deny"
    assert 1.5 < record["duration_s"] < 4


@pytest.mark.parametrize(
    ("bytes_sent", "reason"),
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", "not_tls_or_http", id="ssh"),
        pytest.param(b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "malformed_hello", id="no-hello"),
        pytest.param(b"\x16\x03\x01\xff\xff" + b"\x01" * 64, "malformed_hello", id="record-size"),
    ],
)
def test_what_is_no_hello_is_refused(either: Gateway, bytes_sent: bytes, reason: str) -> None:
    mark = either.records.mark()
    with either.lab.net.spoke.connect(sites.CONTOSO.addresses[0], 443) as connection:
        connection.sendall(bytes_sent)
        while connection.recv(4096):
            pass
    record = either.record(skip=mark, reason=reason)
    assert (record["action"], record["dst_ip"]) == ("deny", sites.CONTOSO.addresses[0])


def test_closed_before_hello_is_no_deny_noise(either: Gateway) -> None:
    """``nc -z`` and health probes."""
    mark = either.records.mark()
    spoke = either.lab.net.spoke
    spoke.run("nc", "-z", "-w", "5", sites.CONTOSO.addresses[0], "443")
    record = either.record(skip=mark, reason="closed_before_hello")
    assert record["name"] is None


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_no_sni_to_the_api_server_is_allowed(either: Gateway, family: int) -> None:
    lab = either.lab
    seen = lab.events.mark()
    connection = lab.net.spoke.connect(sites.API_SERVER.addresses[family], 443)
    with open_tls(connection, Offer(None, ("h2",)), lab.authority.ca_file) as client:
        assert client.handshake() == "h2"
        assert lab.events.wait(lambda e: e.get("hello") == client.hello.hex(), skip=seen)


def test_no_sni_to_the_api_server_without_the_rule(either: Gateway) -> None:
    either.apply_policy(policies.policy(policies.CORE, policies.DNS))
    _refused(either, Offer(None), sites.API_SERVER.addresses[0], "no_sni")


def test_no_sni_elsewhere(either: Gateway) -> None:
    _refused(either, Offer(None), sites.CONTOSO.addresses[0], "no_sni")


def test_sni_of_an_address(either: Gateway) -> None:
    """OpenSSL's client puts no address into SNI, so the bytes of a name are changed."""
    lab = either.lab
    mark = either.records.mark()
    hello = client_hello(Offer("aaa.example"), lab.authority.ca_file)
    hello.connection.close()
    with lab.net.spoke.connect(sites.CONTOSO.addresses[0], 443) as connection:
        connection.sendall(hello.hello.replace(b"aaa.example", b"13.107.6.10"))
        assert alert_of(connection.recv(64)) == ACCESS_DENIED
    record = either.record(skip=mark, reason="ip_literal")
    assert record["action"] == "deny"


def _refused(gateway: Gateway, offer: Offer, address: str, reason: str) -> None:
    lab = gateway.lab
    mark, seen = gateway.records.mark(), lab.events.mark()
    connection = lab.net.spoke.connect(address, 443)
    with (
        open_tls(connection, offer, lab.authority.ca_file) as client,
        pytest.raises(ssl.SSLError, match="ACCESS_DENIED"),
    ):
        client.handshake()
    assert alert_of(client.first_answer) == ACCESS_DENIED
    record = gateway.record(skip=mark, reason=reason)
    assert (record["action"], record["dst_ip"]) == ("deny", address)
    assert not [event for event in lab.events.read()[seen:] if event["event"] == "tls"]

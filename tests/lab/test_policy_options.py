"""Options of a policy, seen by a client: audit, and the ways to refuse."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING

import pytest

from lab import policies, sites
from lab.http_client import HttpClient
from lab.tls_client import Offer, TlsClient, open_tls

if TYPE_CHECKING:
    from lab.gateway import Gateway

pytestmark = pytest.mark.netns

CORE = policies.policy(policies.CORE, policies.DNS)
EVIL = sites.ELSEWHERE.addresses[0]


def _tls(gateway: Gateway, name: str | None) -> TlsClient:
    lab = gateway.lab
    return open_tls(lab.net.spoke.connect(EVIL, 443), Offer(name), lab.authority.ca_file)


def test_audit_lets_pass_and_says_so(either: Gateway) -> None:
    either.apply_policy(CORE + "mode: audit\naudit_until: 2099-12-31\n")
    mark = either.records.mark()
    with _tls(either, "example.com") as client:
        client.handshake()
    record = either.record(skip=mark, name="example.com")
    assert (record["action"], record["reason"]) == ("allow", "default_deny")
    assert record["would_deny"] is True


def test_audit_of_a_nameless_flow_dials_its_own_address(either: Gateway) -> None:
    either.apply_policy(CORE + "mode: audit\naudit_until: 2099-12-31\n")
    mark = either.records.mark()
    with _tls(either, None) as client:
        client.handshake()
    record = either.record(skip=mark, reason="no_sni")
    assert (record["action"], record["dialled_ip"]) == ("allow", EVIL)


def test_audit_ends_by_itself(gw: Gateway) -> None:
    gw.apply_policy(CORE + "mode: audit\naudit_until: 2020-01-01\n")
    with _tls(gw, "example.com") as client, pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
        client.handshake()


def test_refusal_by_reset(either: Gateway) -> None:
    either.apply_policy(CORE + "refusal: reset\n")
    with _tls(either, "example.com") as client, pytest.raises(ConnectionResetError):
        client.handshake()


def test_refusal_by_silence_lasts_until_the_hello_timeout(either: Gateway) -> None:
    either.apply_policy(CORE + "refusal: drop\n")
    mark = either.records.mark()
    started = time.monotonic()
    with _tls(either, "example.com") as client, pytest.raises((ConnectionError, ssl.SSLError)):
        client.handshake()
    assert client.first_answer == b""
    assert time.monotonic() - started > 1.5
    assert either.record(skip=mark, name="example.com")["reason"] == "default_deny"


def test_refusal_by_reset_of_http(either: Gateway) -> None:
    any_http = "  - {name: any, to: [www.contoso.example], ports: [http]}\n"
    text = policies.policy(policies.CORE, policies.DNS, rules=any_http)
    either.apply_policy(text + "refusal: reset\n")
    with (
        either.lab.net.spoke.connect(EVIL, 80) as connection,
        pytest.raises(ConnectionError),
    ):
        HttpClient(connection).get("example.com")

"""A policy edit in a running gateway: at once, atomic, and harmless to what stays allowed."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from lab import policies, sites
from lab.programs import client
from lab.tls_client import Offer, TlsClient, open_tls
from lab.web import pattern

if TYPE_CHECKING:
    from pathlib import Path

    from lab.gateway import Gateway

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

TUNNELS = 200
RELOADS = 50
DOWNLOAD_BYTES = 64 << 20
LATE_S = 2.0
"""Far above the 200 ms goal, which ``make demo`` and the benchmark show: no timed test."""
KONNECTIVITY = ("konnectivity", "h2")
CORE = (policies.CORE, policies.DNS)
GITHUB = "  - {name: github, to: [github.com], ports: [https]}\n"
CONTOSO = '  - {name: contoso, to: ["*.contoso.example"], ports: [https]}\n'


def _tls(gateway: Gateway, name: str) -> TlsClient:
    lab = gateway.lab
    offer = Offer(name, KONNECTIVITY if name == sites.CLUSTER else ())
    connection = lab.net.spoke.connect(sites.ELSEWHERE.addresses[0], 443, timeout_s=30)
    return open_tls(connection, offer, lab.authority.ca_file)


def _tunnel(gateway: Gateway) -> TlsClient:
    tunnel = _tls(gateway, sites.CLUSTER)
    tunnel.handshake()
    tunnel.read_line()
    return tunnel


def _echoes(tunnel: TlsClient, text: bytes) -> bool:
    tunnel.send(text)
    data = bytearray()
    while len(data) < len(text) and (more := tunnel.read()):
        data += more
    return bytes(data) == text


def test_tunnels_and_a_download_outlive_fifty_reloads(gw: Gateway, tmp_path: Path) -> None:
    gw.apply_policy(policies.policy(*CORE, rules=CONTOSO))
    target = tmp_path / "download"
    url = f"https://www.contoso.example/slow/{DOWNLOAD_BYTES}"
    argv = (
        "curl",
        "-sS",
        "--http1.1",
        "--limit-rate",
        "8M",
        "-o",
        str(target),
        "--max-time",
        "120",
        url,
    )
    done: list[int] = []

    def download() -> None:
        lab = gw.lab
        done.append(client(lab.net.spoke, *argv, environment=lab.trust, timeout_s=130).code)

    with ExitStack() as stack:
        tunnels = [stack.enter_context(_tunnel(gw)) for _ in range(TUNNELS)]
        downloader = threading.Thread(target=download, name="download")
        downloader.start()
        for number in range(RELOADS):
            rules = CONTOSO + (GITHUB if number % 2 == 0 else "")
            gw.apply_policy(policies.policy(*CORE, rules=rules))
            assert _echoes(tunnels[number], b"during reload %d" % number)
        for number, tunnel in enumerate(tunnels):
            assert _echoes(tunnel, b"after all %d" % number)
        downloader.join()
    assert done == [0]
    received = hashlib.sha256(target.read_bytes()).hexdigest()
    assert received == hashlib.sha256(pattern(DOWNLOAD_BYTES)).hexdigest()


def test_a_new_rule_is_in_force_soon(gw: Gateway) -> None:
    elapsed = gw.apply_policy(policies.policy(*CORE, rules=GITHUB))
    with _tls(gw, "github.com") as client_:
        client_.handshake()
    assert elapsed < LATE_S


def test_a_revoked_flow_is_closed_and_others_stay(gw: Gateway) -> None:
    gw.apply_policy(policies.policy(*CORE, rules=GITHUB))
    mark = gw.records.mark()
    with _tunnel(gw) as tunnel, _tls(gw, "github.com") as revoked:
        revoked.handshake()
        started = gw.write_policy(policies.policy(*CORE))
        try:
            while revoked.connection.recv(4096):
                pass
        except ConnectionError:
            pass
        assert time.monotonic() - started < LATE_S
        record = gw.record(skip=mark, name="github.com", reason="revoked")
        assert record["action"] == "deny"
        assert _echoes(tunnel, b"still here")


def test_keep_leaves_the_flow_open(gw: Gateway) -> None:
    keeping = "on_reload: keep\n"
    gw.apply_policy(policies.policy(*CORE, rules=GITHUB) + keeping)
    with _tls(gw, "github.com") as kept:
        kept.handshake()
        gw.apply_policy(policies.policy(*CORE) + keeping)
        kept.send(b"GET / HTTP/1.1\r\nHost: github.com\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in kept.read()


def test_a_broken_policy_changes_nothing(gw: Gateway) -> None:
    before = gw.digest()
    refused = gw.metric("egressproxy_reloads_total", outcome="refused")
    gw.write_policy(gw.policy_file.read_text().replace("aks/core", "aks/cor"))
    deadline = time.monotonic() + 5
    while gw.metric("egressproxy_reloads_total", outcome="refused") == refused:
        assert time.monotonic() < deadline, "the gateway says nothing of the broken policy"
        time.sleep(0.02)
    assert gw.digest() == before
    assert "aks/cor" in gw.service_log.read_text()
    with _tls(gw, "mcr.microsoft.com") as allowed:
        allowed.handshake()

"""The service under its flows: nothing is leaked, and a worker that dies takes nobody along."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import sites
from lab.tls_client import Offer, TlsClient, alert_of, open_tls

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.gateway import Gateway

pytestmark = pytest.mark.netns

ROUNDS = 40


def _tls(gateway: Gateway, name: str) -> TlsClient:
    lab = gateway.lab
    offer = Offer(name, ("konnectivity",) if name == sites.CLUSTER else ())
    return open_tls(
        lab.net.spoke.connect(sites.ELSEWHERE.addresses[0], 443), offer, lab.authority.ca_file
    )


def _is_served(gateway: Gateway, name: str) -> bool:
    with _tls(gateway, name) as client:
        return alert_of(client.connection.recv(4096)) is None


def _some_of_everything(gateway: Gateway) -> None:
    spoke = gateway.lab.net.spoke
    for _ in range(ROUNDS):
        assert _is_served(gateway, "www.contoso.example")
        assert not _is_served(gateway, "example.com")
        spoke.connect(sites.CONTOSO.addresses[0], 80).close()
        with spoke.connect(sites.CONTOSO.addresses[1], 80) as half:
            half.sendall(b"GET / HTTP/1.1\r\nHost: www.")


def _descriptors(gateway: Gateway) -> list[int]:
    return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in gateway.workers()]


def _wait_for(claim: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def test_flows_leave_nothing_behind(gw: Gateway) -> None:
    _some_of_everything(gw)
    gw.await_no_flows()
    before = _descriptors(gw)
    _some_of_everything(gw)
    gw.await_no_flows()
    # The resolver may hold a socket to its server for a while, the relay a pipe more.
    _wait_for(
        lambda: all(now <= then + 4 for then, now in zip(before, _descriptors(gw), strict=True)),
        f"descriptors are left; there were {before}",
    )


def test_a_killed_worker_is_replaced_and_loses_no_new_flow(gw: Gateway) -> None:
    restarts = gw.metric("egressproxy_worker_restarts_total")
    victim, *others = gw.workers()
    os.kill(victim, signal.SIGKILL)
    assert all(_is_served(gw, "www.contoso.example") for _ in range(ROUNDS))
    _wait_for(
        lambda: json.loads(gw.admin("/readyz")[1])["ready"] and victim not in gw.workers(),
        "the worker is not replaced",
    )
    assert set(others) < set(gw.workers())
    assert gw.metric("egressproxy_worker_restarts_total") == restarts + 1


def test_tunnels_are_shared_by_the_workers(gw: Gateway) -> None:
    mark = gw.records.mark()
    with ExitStack() as stack:
        for _ in range(ROUNDS):
            stack.enter_context(_tls(gw, sites.CLUSTER)).handshake()
        _wait_for(
            lambda: gw.metric("egressproxy_active_flows") >= ROUNDS, "tunnels are not counted"
        )
    _wait_for(lambda: gw.records.mark() >= mark + ROUNDS, "tunnels without a record")
    workers = {record["flow_id"].split("-")[0] for record in gw.records.read()[mark:]}
    assert workers == {"0", "1"}

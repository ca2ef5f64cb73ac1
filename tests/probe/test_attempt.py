"""One name tried against real servers on loopback: how far it comes, and what is seen."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from egressproxy.names import DnsName
from egressproxy.policy.openings import Opening
from egressproxy.ports import Protocol
from egressproxy.probe.attempt import Attempt, Step, attempt, trusting
from tests.policy.building import rule
from tests.probe.servers import (
    answer_head,
    certified,
    keep_silent,
    means,
    reset,
    server,
    talk_nonsense,
)

if TYPE_CHECKING:
    from pathlib import Path

    from lab.authority import Authority
    from tests.probe.servers import Session

A = DnsName("a.test")
HERE = {A: ("127.0.0.1",)}


def opening(port: int, protocol: Protocol = Protocol.TLS) -> Opening:
    return Opening(A, protocol, port, rule("r", "a.test"), False)


def tried(
    session: Session,
    protocol: Protocol,
    pem: Path | None = None,
    *,
    ca_file: Path | None = None,
    hello_timeout_s: float = 5.0,
) -> Attempt:
    async def run() -> Attempt:
        tls = certified(pem) if pem else None
        async with (
            server(session, tls) as port,
            means(HERE, ca_file=ca_file, hello_timeout_s=hello_timeout_s) as given,
        ):
            return await attempt(opening(port, protocol), given)

    return asyncio.run(run())


def test_tls(authority: Authority) -> None:
    good = authority.directory / "good.pem"
    found = tried(keep_silent, Protocol.TLS, good, ca_file=authority.ca_file)
    assert (found.step, found.error, found.address) == (Step.DONE, "", "127.0.0.1")
    assert (found.tls_version, found.alpn) == ("TLSv1.3", "http/1.1")
    assert found.issuer == "egressproxy lab CA"
    assert ssl.cert_time_to_seconds(found.not_after) > 0
    assert found.seconds > 0


def test_a_ca_that_is_not_trusted(authority: Authority) -> None:
    found = tried(keep_silent, Protocol.TLS, authority.directory / "good.pem")
    assert found.step is Step.CERTIFICATE
    assert found.verify_code in (19, 20)


def test_a_certificate_of_another_name(authority: Authority) -> None:
    other = authority.directory / "other.pem"
    found = tried(keep_silent, Protocol.TLS, other, ca_file=authority.ca_file)
    assert found.step is Step.CERTIFICATE
    assert found.verify_code == 62
    assert "a.test" in found.error


@pytest.mark.parametrize(
    ("session", "protocol", "step", "error"),
    [
        (reset, Protocol.TLS, Step.TLS, "connection reset"),
        (talk_nonsense, Protocol.TLS, Step.TLS, "wrong version number"),
        (keep_silent, Protocol.TLS, Step.TLS, "timeout"),
        (reset, Protocol.HTTP, Step.HTTP, "connection reset"),
        (talk_nonsense, Protocol.HTTP, Step.HTTP, "no HTTP answer"),
        (keep_silent, Protocol.HTTP, Step.HTTP, "timeout"),
    ],
)
def test_without_tls(session: Session, protocol: Protocol, step: Step, error: str) -> None:
    found = tried(session, protocol, hello_timeout_s=0.3)
    assert (found.step, found.error) == (step, error)


def test_http() -> None:
    found = tried(answer_head, Protocol.HTTP)
    assert (found.step, found.http_status) == (Step.DONE, 404)


async def _closed(*addresses: str, is_lab: bool = True, port: int) -> Attempt:
    async with means({A: addresses}, is_lab=is_lab) as given:
        return await attempt(opening(port, Protocol.TCP), given)


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


def test_nobody_listens(closed_port: int) -> None:
    found = asyncio.run(_closed("127.0.0.1", port=closed_port))
    assert (found.step, found.error) == (Step.CONNECT, "connection refused")


def test_tcp_is_connected_and_the_next_address_is_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        found = asyncio.run(_closed("127.0.0.9", "127.0.0.1", port=sock.getsockname()[1]))
    assert (found.step, found.address) == (Step.DONE, "127.0.0.1")


def test_the_guard(closed_port: int) -> None:
    found = asyncio.run(_closed("10.0.0.1", "127.0.0.1", is_lab=False, port=closed_port))
    assert (found.step, found.error) == (Step.GUARD, "forbidden_address")
    assert found.addresses == ("10.0.0.1", "127.0.0.1")


def test_no_dns() -> None:
    async def run() -> Attempt:
        async with means({}) as given:
            return await attempt(opening(443), given)

    found = asyncio.run(run())
    assert found.step is Step.RESOLVE
    assert found.error in ("servfail", "timeout")


def test_udp_is_resolved_and_no_more() -> None:
    async def run() -> Attempt:
        async with means({A: ("20.1.2.3",)}, is_lab=False) as given:
            return await attempt(opening(123, Protocol.UDP), given)

    found = asyncio.run(run())
    assert (found.step, found.address) == (Step.DONE, "20.1.2.3")


def test_trust(tmp_path: Path) -> None:
    assert trusting().check_hostname
    with pytest.raises(OSError, match="No such file"):
        trusting(str(tmp_path / "none"))
    (tmp_path / "empty").write_text("x")
    with pytest.raises(OSError, match=r"(?i)no certificate"):
        trusting(str(tmp_path / "empty"))

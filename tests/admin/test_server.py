"""The listener itself: its pages over a real socket, its bounds, its places."""

from __future__ import annotations

import asyncio
import socket
import stat
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import pytest

from egressproxy.admin.options import AdminOptions
from egressproxy.admin.server import ACCEPT_BATCH, MAX_CONNECTIONS, serve_admin
from egressproxy.errors import Problem, ServiceError
from egressproxy.service.options import Endpoint
from egressproxy.service.report import Outcome, ReloadReport, Trigger
from egressproxy.service.supervisor import Phase
from tests.admin.double import FakeSupervisor, serving_supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from egressproxy.service.supervisor import Supervisor

pytestmark = pytest.mark.anyio

TOKEN = "correct-horse-battery-staple"
POLICY = """\
version: 1
cloud: AzureCloud
sources: {team: [10.1.0.0/16]}
rules:
  - {name: one, to: [one.test, "*.two.test"], ports: [https, "tls:8443"], from: [team]}
  - {name: net, to: [192.0.2.0/24], ports: ["tcp:1433"], until: 2099-12-31}
  - {name: names, to: ["list:names.txt"], ports: [https]}
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[FakeSupervisor]:
    (tmp_path / "names.txt").write_text("a.test\nb.test\n")
    with serving_supervisor(tmp_path, POLICY) as serving:
        serving.last_reload = None
        yield serving


@dataclass
class Client:
    session: aiohttp.ClientSession
    base: str

    async def ask(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, self.base + path, headers=named) as response:
            is_json = response.content_type == "application/json"
            body = await (response.json() if is_json else response.text())
            return response.status, body, response


@asynccontextmanager
async def admin(supervisor: FakeSupervisor, token: str = "") -> AsyncIterator[Client]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = AdminOptions(Endpoint("127.0.0.1", port), token)
    async with (
        asyncio.timeout(20),
        serve_admin(cast("Supervisor", supervisor), options),
        aiohttp.ClientSession() as session,
    ):
        yield Client(session, f"http://127.0.0.1:{port}")


async def test_health_and_readiness(supervisor: FakeSupervisor) -> None:
    async with admin(supervisor) as client:
        status, body, _ = await client.ask("/healthz")
        assert (status, body) == (200, {"status": "ok", "phase": "serving"})
        assert (await client.ask("/readyz"))[0] == 200
        supervisor.is_ready = False
        status, body, _ = await client.ask("/readyz")
        assert (status, body["ready"]) == (503, False)


async def test_before_the_policy_is_loaded(supervisor: FakeSupervisor) -> None:
    supervisor.crew, supervisor.phase, supervisor.is_ready = None, Phase.STARTING, False
    async with admin(supervisor) as client:
        assert (await client.ask("/healthz"))[0] == 200
        assert (await client.ask("/readyz"))[0] == 503
        assert (await client.ask("/policy"))[0] == 503
        assert (await client.ask("/metrics"))[0] == 200


async def test_policy(supervisor: FakeSupervisor) -> None:
    async with admin(supervisor) as client:
        status, body, _ = await client.ask("/policy")
    assert status == 200
    assert body["sources"] == {"team": ["10.1.0.0/16"]}
    one, net, names = body["rules"]
    assert one["to"] == ["one.test", "*.two.test"]
    assert one["ports"] == ["tls:443", "tls:8443"]
    assert one["from"] == ["team"]
    assert one["origin"].endswith("policy.yaml:5")
    assert net["to"] == ["192.0.2.0/24"]
    assert net["until"] == "2099-12-31"
    assert names["to"][0].startswith("list:")
    assert names["to"][0].endswith("(2 names)")
    assert {Path(name).name for name in body["files"]} == {"policy.yaml", "names.txt"}
    assert body["last_reload"] is None


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
    ],
)
async def test_metrics(supervisor: FakeSupervisor, accept: str, content_type: str) -> None:
    async with admin(supervisor) as client:
        status, text, response = await client.ask("/metrics", Accept=accept)
    assert (status, response.content_type) == (200, content_type)
    for name in ("egressproxy_ready 1.0", "egressproxy_worker_restarts", "process_cpu_seconds"):
        assert name in text
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families)), "a family is told twice"
    assert all(name.startswith(("egressproxy_", "process_")) for name in families)


REFUSED = ReloadReport(
    outcome=Outcome.REFUSED,
    triggers=(Trigger.ADMIN,),
    at=0.0,
    digest="abc",
    problems=(Problem("p.yaml", 3, 1, "one", "do this"), Problem("p.yaml", 4, 1, "two")),
)


async def test_reload_tells_every_problem(supervisor: FakeSupervisor) -> None:
    supervisor.answers = [REFUSED]
    async with admin(supervisor) as client:
        status, body, _ = await client.ask("/reload", "POST", X_Egressproxy="yes")
    assert (status, body["outcome"]) == (422, "refused")
    assert body["at"] == "1970-01-01T00:00:00.000+00:00"
    assert [(p["line"], p["what"], p["hint"]) for p in body["problems"]] == [
        (3, "one", "do this"),
        (4, "two", ""),
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ReloadReport(outcome=Outcome.APPLIED, triggers=(), at=0, digest="a"), 200),
        (ReloadReport(outcome=Outcome.UNCHANGED, triggers=(), at=0, digest="a"), 200),
        (ReloadReport(outcome=Outcome.FAILED, triggers=(), at=0, digest="a", error="w"), 503),
        (ServiceError("no reload while draining"), 503),
    ],
    ids=["applied", "unchanged", "failed", "draining"],
)
async def test_reload_status(
    supervisor: FakeSupervisor, answer: ReloadReport | ServiceError, expected: int
) -> None:
    supervisor.answers = [answer]
    async with admin(supervisor) as client:
        assert (await client.ask("/reload", "POST", X_Egressproxy="yes"))[0] == expected


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", [Trigger.ADMIN]),
        ("?force=1", [Trigger.ADMIN, Trigger.FORCED]),
        ("?force=0", [Trigger.ADMIN]),
        ("?force", [Trigger.ADMIN]),
    ],
)
async def test_a_reload_can_be_forced(
    supervisor: FakeSupervisor, query: str, asked: list[Trigger]
) -> None:
    supervisor.answers = [REFUSED]
    async with admin(supervisor) as client:
        await client.ask(f"/reload{query}", "POST", X_Egressproxy="yes")
    assert supervisor.asked == asked


async def test_a_browser_on_this_machine_cannot_reload(supervisor: FakeSupervisor) -> None:
    """A form of another origin: no custom header, no answer to its preflight."""
    async with admin(supervisor) as client:
        origin = {"Origin": "http://evil.example", "Content_Type": "text/plain"}
        assert (await client.ask("/reload", "POST", **origin))[0] == 403
        status, _, response = await client.ask(
            "/reload", "OPTIONS", Access_Control_Request_Method="POST", **origin
        )
        assert status == 403
        assert not [name for name in response.headers if name.startswith("Access-Control")]
        assert (await client.ask("/reload"))[0] == 405


async def test_every_answer_has_the_security_headers(supervisor: FakeSupervisor) -> None:
    async with admin(supervisor, TOKEN) as client:
        for path in ("/healthz", "/policy", "/nowhere", "/reload"):
            _, _, response = await client.ask(path)
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cache-Control"] == "no-store"
            assert "aiohttp" not in response.headers["Server"]
        status, body, response = await client.ask("/policy")
        assert (status, TOKEN in str(body)) == (401, False)
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert (await client.ask("/policy", Authorization=f"Bearer {TOKEN}"))[0] == 200
        assert (await client.ask("/nowhere", Authorization=f"Bearer {TOKEN}"))[0] == 404


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n",
        b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["long header", "long path", "tls", "two hosts", "smuggling"],
)
async def test_hostile_bytes(supervisor: FakeSupervisor, request_bytes: bytes) -> None:
    async with admin(supervisor) as client:
        port = int(client.base.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_bytes)
        answer = await reader.read(65536)
        assert answer.split(b" ")[1:2] in ([b"400"], [b"421"], [b"414"], [b"431"]), answer[:200]
        writer.close()
        await writer.wait_closed()
        assert (await client.ask("/healthz"))[0] == 200


async def test_a_large_body_is_not_read(supervisor: FakeSupervisor) -> None:
    supervisor.answers = [REFUSED]
    async with admin(supervisor) as client:
        async with client.session.post(
            client.base + "/reload", data=b"x" * 1_000_000, headers={"X-Egressproxy": "yes"}
        ) as response:
            assert response.status in (413, 422)
        assert (await client.ask("/healthz"))[0] == 200


async def test_idle_connections_do_not_shut_others_out(supervisor: FakeSupervisor) -> None:
    async with admin(supervisor) as client:
        port = int(client.base.rpartition(":")[2])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        assert (await client.ask("/healthz"))[0] == 200
        assert await idle[0][0].read() == b"", "the oldest made room"
        for _, writer in idle:
            writer.close()


async def test_a_burst_of_connections_is_bounded_too(supervisor: FakeSupervisor) -> None:
    async with admin(supervisor) as client:
        port = int(client.base.rpartition(":")[2])
        count = 3 * MAX_CONNECTIONS
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        burst = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
        assert (await client.ask("/healthz"))[0] == 200
        for reader, writer in streams:
            async with asyncio.timeout(10):
                assert await reader.read() == b""
            writer.close()
        ended = 0
        for sock in burst:
            sock.setblocking(False)
            with suppress(BlockingIOError):
                ended += sock.recv(1) == b""
            sock.close()
        assert count - ended <= MAX_CONNECTIONS + ACCEPT_BATCH


async def test_a_request_without_host_asks_no_resolver(
    supervisor: FakeSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp would: it blocks the loop, on which the workers' heartbeats are, for seconds."""

    def resolve(*_: object) -> str:
        raise AssertionError("the resolver was asked")

    monkeypatch.setattr(socket, "getfqdn", resolve)
    async with admin(supervisor) as client:
        port = int(client.base.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.0 200 ")
        writer.close()


async def test_garbage_is_no_news(
    supervisor: FakeSupervisor, caplog: pytest.LogCaptureFixture
) -> None:
    async with admin(supervisor) as client:
        port = int(client.base.rpartition(":")[2])
        for garbage in (bytes(range(256)), b"GET / HTTP/1.1\r\nX: " + b"a" * 20000 + b"\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(garbage)
            assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
            writer.close()
    assert not caplog.records


async def test_unix_socket(supervisor: FakeSupervisor, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    options = AdminOptions(path)
    async with asyncio.timeout(20):
        async with serve_admin(cast("Supervisor", supervisor), options):
            assert mode(path) == 0o600
            connector = aiohttp.UnixConnector(str(path))
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.get("http://anything/healthz") as response,
            ):
                assert response.status == 200
            with pytest.raises(ServiceError, match="Address already in use"):
                async with serve_admin(cast("Supervisor", supervisor), options):
                    pass
        assert not is_there(path)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        async with serve_admin(cast("Supervisor", supervisor), options):
            assert is_there(path), "a dead service's socket is replaced"


async def test_a_taken_port(supervisor: FakeSupervisor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = AdminOptions(Endpoint("127.0.0.1", taken.getsockname()[1]))
        with pytest.raises(ServiceError, match="already in use"):
            async with serve_admin(cast("Supervisor", supervisor), options):
                pass


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def is_there(path: Path) -> bool:
    return path.exists()

"""Errors of every page: JSON for programs, pages for browsers, headers on all."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from egressproxy.admin.access import SECURITY_HEADERS
from egressproxy.admin.options import AdminOptions
from egressproxy.admin.rates import PAGES_OF_ONE
from egressproxy.admin.server import serve_admin
from egressproxy.service.options import Endpoint
from tests.admin.double import serving_supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

TOKEN = "correct-horse-battery-staple"
READ_TOKEN = "only-looking-thank-you"
HTML = {"Accept": "text/html,application/xhtml+xml"}


@asynccontextmanager
async def client(
    folder: Path, token: str = "", read_token: str = ""
) -> AsyncIterator[aiohttp.ClientSession]:
    options = AdminOptions(Endpoint("127.0.0.1", 0), token, read_token)
    with serving_supervisor(folder) as supervisor:
        async with (
            asyncio.timeout(20),
            serve_admin(supervisor.as_supervisor, options) as place,
            aiohttp.ClientSession(place) as session,
        ):
            yield session


async def ask(
    session: aiohttp.ClientSession, path: str, method: str = "GET", **options: Any
) -> tuple[int, str, aiohttp.ClientResponse]:
    async with session.request(method, path, allow_redirects=False, **options) as response:
        return response.status, await response.text(), response


@pytest.mark.parametrize(
    ("path", "method", "headers", "status", "kind"),
    [
        ("/healthz", "GET", {}, 200, "application/json"),
        ("/review", "GET", {}, 200, "text/html"),
        ("/static/style.css", "GET", {}, 200, "text/css"),
        ("/static/none.css", "GET", {}, 404, "text/html"),
        ("/review/nothing", "GET", {}, 404, "text/html"),
        ("/nothing", "GET", {}, 404, "application/json"),
        ("/nothing", "GET", HTML, 404, "text/html"),
        ("/review", "DELETE", {}, 415, "text/html"),
        ("/policy", "POST", {"X-Egressproxy": "yes"}, 405, "application/json"),
        ("/review", "GET", {"Host": "rebound.example"}, 421, "text/html"),
        ("/policy", "GET", {"Host": "rebound.example"}, 421, "application/json"),
        ("/", "GET", {}, 303, "application/octet-stream"),
    ],
)
async def test_every_answer_has_the_headers(
    tmp_path: Path, path: str, method: str, headers: dict[str, str], status: int, kind: str
) -> None:
    async with client(tmp_path) as session:
        got, text, response = await ask(session, path, method, headers=headers)
    assert (got, response.content_type) == (status, kind)
    assert {name: response.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert response.headers["Cache-Control"] in ("no-store", "no-cache")
    assert " style=" not in text
    assert " onclick" not in text


async def test_a_stranger_on_loopback_is_told_nothing(tmp_path: Path) -> None:
    async with client(tmp_path) as session:
        _, text, response = await ask(session, "/review", headers={"Host": "rebound.example"})
    assert "hub-nva-1" not in text
    assert "policy" not in text
    assert "Set-Cookie" not in response.headers


async def test_a_fault_is_a_page_and_stands_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("egressproxy.admin.overview.SPANS", ())

    async with client(tmp_path) as session:
        monkeypatch.setattr("egressproxy.admin.overview.span_of", lambda _: 1 // 0)
        status, text, response = await ask(session, "/review")
        assert status == 500
        assert "A fault of ours" in text
        assert "ZeroDivision" not in text
        assert "Content-Security-Policy" in response.headers
        assert (await ask(session, "/healthz"))[0] == 200


async def test_browsers_are_sent_to_the_login_and_programs_are_not(tmp_path: Path) -> None:
    async with client(tmp_path, TOKEN) as session:
        status, _, response = await ask(session, "/review/denies?name=a.example&since=7d")
        assert status == 303
        place = urlsplit(response.headers["Location"])
        assert place.path == "/login"
        assert parse_qs(place.query) == {"next": ["/review/denies?name=a.example&since=7d"]}
        assert (await ask(session, "/policy"))[0] == 401
        assert (await ask(session, "/policy", headers=HTML))[0] == 303
        assert (await ask(session, "/review/reloads", "POST"))[0] == 401
        for path in ("/static/style.css", "/login", "/healthz", "/readyz"):
            assert (await ask(session, path))[0] == 200
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert (await ask(session, "/review", headers=bearer))[0] == 200


async def test_the_read_token_changes_nothing(tmp_path: Path) -> None:
    bearer = {"Authorization": f"Bearer {READ_TOKEN}", "X-Egressproxy": "yes"}
    async with client(tmp_path, TOKEN, READ_TOKEN) as session:
        for path in ("/policy", "/metrics", "/review"):
            assert (await ask(session, path, headers=bearer))[0] == 200
        status, text, _ = await ask(session, "/reload", "POST", headers=bearer)
        assert status == 403
        assert "--admin-token-file" in text
        assert (await ask(session, "/review/reloads", "POST", headers=bearer))[0] == 403


async def test_a_token_in_a_header_is_no_way_around_the_form_token(tmp_path: Path) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    async with client(tmp_path, TOKEN) as session:
        status, text, _ = await ask(
            session, "/review/reloads", "POST", headers=bearer, data={"form_token": "0" * 64}
        )
    assert status == 403
    assert "This form is not from here" in text


async def test_wrong_tokens_in_headers_are_counted_but_lock_nobody_out(tmp_path: Path) -> None:
    async with client(tmp_path, TOKEN) as session:
        wrong = {"Authorization": "Bearer wrong-wrong-wrong-wrong"}
        seen = [(await ask(session, "/metrics", headers=wrong))[0] for _ in range(8)]
        assert seen[0] == 401
        assert seen[-1] == 429
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert (await ask(session, "/metrics", headers=right))[0] == 200


async def test_pages_have_a_pace(tmp_path: Path) -> None:
    async with client(tmp_path) as session:
        seen = [
            (await ask(session, "/review/nothing"))[0] for _ in range(int(PAGES_OF_ONE.burst) + 30)
        ]
        assert seen[0] == 404
        assert seen[-1] == 429
        status, text, response = await ask(session, "/review")
        assert status == 429
        assert "Too many pages" in text
        assert int(response.headers["Retry-After"]) >= 1
        assert (await ask(session, "/metrics"))[0] == 200, "programs are not held up by people"


async def test_strangers_slow_down_nobody_who_has_a_token(tmp_path: Path) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    async with client(tmp_path, TOKEN) as session:
        burst = int(PAGES_OF_ONE.burst)
        seen = [(await ask(session, "/login"))[0] for _ in range(burst + 30)]
        assert (seen[0], seen[-1]) == (200, 429)
        assert (await ask(session, "/review", headers=bearer))[0] == 200


@pytest.mark.parametrize(
    "cookie",
    ["=", ";;;", 'a="\\', "egressproxy-x=\u00ff", "x" * 4000, "a=b; " * 500],
    ids=["empty", "separators", "quote", "latin", "long", "many"],
)
async def test_cookies_that_are_none(tmp_path: Path, cookie: str) -> None:
    async with client(tmp_path, TOKEN) as session:
        status, _, _ = await ask(session, "/login", headers={"Cookie": cookie})
    assert status == 200


async def test_programs_get_no_cookie(tmp_path: Path) -> None:
    async with client(tmp_path, TOKEN) as session:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        _, _, response = await ask(session, "/review/reloads", headers=headers)
    assert "Set-Cookie" not in response.headers


async def test_a_form_that_is_too_large(tmp_path: Path) -> None:
    async with client(tmp_path, TOKEN) as session:
        status, _, _ = await ask(session, "/login", "POST", data={"token": "x" * 10_000})
    assert status == 413


async def test_a_form_that_is_none(tmp_path: Path) -> None:
    async with client(tmp_path, TOKEN) as session:
        form = "application/x-www-form-urlencoded"
        for kind, body, expected in (
            ("multipart/form-data", b"", 415),
            ("multipart/form-data; boundary=x", b"--x\r\n", 415),
            ("text/plain", b"form_token=x", 415),
            (f"{form}; charset=nonsense", b"form_token=x", 403),
            (form, b"\xff" * 100, 403),
            (form, b"a&" * 100, 400),
            (form, b"", 403),
        ):
            headers = {"Content-Type": kind}
            status, _, _ = await ask(session, "/login", "POST", data=body, headers=headers)
            assert status == expected, kind


async def test_nobody_asks_without_a_host(tmp_path: Path) -> None:
    async with client(tmp_path) as session:
        url = session._base_url
        assert url is not None
        with socket.create_connection((url.host or "", url.port or 0)) as raw:
            raw.sendall(b"GET /review HTTP/1.0\r\n\r\n")
            raw.settimeout(5)
            got = await asyncio.to_thread(raw.recv, 4096)
    assert got.startswith(b"HTTP/1.0 200")

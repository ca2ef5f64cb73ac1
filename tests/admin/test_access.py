"""Who is answered: Host, token, and the header that a browser cannot send."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from egressproxy.admin.access import Access, cookie_name
from egressproxy.admin.options import AdminOptions
from egressproxy.admin.request import RefusedError
from egressproxy.admin.sessions import Right
from egressproxy.service.options import Endpoint

TOKEN = "correct-horse-battery-staple"
LOOPBACK = AdminOptions(Endpoint("127.0.0.1", 9090))
LOOPBACK_TOKEN = AdminOptions(Endpoint("127.0.0.1", 9090), TOKEN)
PUBLIC = AdminOptions(Endpoint("0.0.0.0", 9090), TOKEN)
UNIX = AdminOptions(Path("/run/egressproxy.sock"))


def status(options: AdminOptions, method: str, path: str, **headers: str) -> int:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        Access(options).admit(make_mocked_request(method, path, headers=given))
    except RefusedError as refused:
        return refused.status
    return 200


@pytest.mark.parametrize("path", ["/policy", "/metrics", "/healthz", "/reload"])
def test_rebinding_is_refused_on_loopback(path: str) -> None:
    assert status(LOOPBACK, "GET", path, Host="rebound.example:9090") == 421
    assert status(LOOPBACK, "GET", path, Host="127.0.0.1:9090") == 200


def test_a_public_listener_goes_by_any_name_but_wants_the_token() -> None:
    bearer = f"Bearer {TOKEN}"
    assert status(PUBLIC, "GET", "/policy", Host="nva.example", Authorization=bearer) == 200
    assert status(PUBLIC, "GET", "/policy", Host="nva.example") == 401
    assert status(PUBLIC, "GET", "/healthz", Host="nva.example") == 200
    assert status(PUBLIC, "GET", "/readyz", Host="nva.example") == 200


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Bearer {TOKEN} x", 401),
        ("Bearer \u00e9", 401),
    ],
)
def test_token(authorization: str, expected: int) -> None:
    host = "localhost"
    assert status(LOOPBACK_TOKEN, "GET", "/metrics", Host=host, Authorization=authorization) == (
        expected
    )


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_a_change_wants_what_a_browser_cannot_send(method: str) -> None:
    host = "localhost"
    assert status(LOOPBACK, method, "/reload", Host=host) == 403
    assert status(LOOPBACK, method, "/reload", Host=host, X_Egressproxy="yes") == 200
    assert status(UNIX, method, "/reload", Host="anything") == 403
    bearer = f"Bearer {TOKEN}"
    assert status(LOOPBACK_TOKEN, method, "/reload", Host=host, X_Egressproxy="yes") == 401
    assert status(LOOPBACK_TOKEN, method, "/reload", Host=host, Authorization=bearer) == 200


def test_each_gateway_has_its_own_cookie() -> None:
    assert cookie_name("hub-1") == cookie_name("hub-1") != cookie_name("hub-2")
    assert re.fullmatch("[a-z0-9-]+", cookie_name("name with = ; and \u00e9"))


@pytest.mark.parametrize(
    ("token", "read_token", "right"),
    [
        (TOKEN, "", Right.CHANGE),
        ("", TOKEN, Right.READ),
        ("another-token-entirely", TOKEN, Right.READ),
        ("another-token-entirely", "", Right.NONE),
        ("", "", Right.NONE),
    ],
)
def test_what_a_token_gives(token: str, read_token: str, right: Right) -> None:
    options = AdminOptions(Endpoint("0.0.0.0", 1), token, read_token)
    assert Access(options).right_of(TOKEN) is right
    assert Access(options).right_of("") is Right.NONE


def test_health_pages_are_no_way_around() -> None:
    assert status(PUBLIC, "POST", "/healthz", Host="nva.example") == 403
    assert status(PUBLIC, "GET", "/healthz/../policy", Host="nva.example") == 401

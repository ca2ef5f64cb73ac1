"""What a request says of itself: whose name it asks for, where to go on, what kind of answer."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from egressproxy.admin.request import (
    bearer,
    is_browser_path,
    is_this_machine,
    local_path,
    wants_page,
)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:9090",
        "localhost.:1",
        "127.0.0.1",
        "127.0.0.1:9090",
        "127.8.8.8:1",
        "[::1]",
        "[::1]:9090",
    ],
)
def test_this_machine(host: str) -> None:
    assert is_this_machine(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "rebound.example",
        "rebound.example:9090",
        "localhost.example",
        "127.0.0.1.example",
        "notlocalhost",
        "10.0.0.1:9090",
        "[::2]:9090",
        "127.0.0.1@rebound.example",
        "0.0.0.0:9090",
        "localhost:80:80",
        "::1",
    ],
)
def test_another_machine(host: str) -> None:
    assert not is_this_machine(host)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("/review/denies?name=a&since=7d", "/review/denies?name=a&since=7d"),
        ("", "/review"),
        ("/login", "/review"),
        ("//evil.example", "/review"),
        ("///evil.example", "/review"),
        ("/\\evil.example", "/review"),
        ("https://evil.example/", "/review"),
        ("https:evil.example", "/review"),
        ("javascript:alert(1)", "/review"),
        ("http://[", "/review"),
        ("/review\r\nSet-Cookie: a=b", "/review"),
        ("review", "/review"),
    ],
)
def test_after_the_login_one_stays_here(text: str, place: str) -> None:
    assert local_path(text) == place


@pytest.mark.parametrize(
    ("path", "is_page"),
    [
        ("/", True),
        ("/login", True),
        ("/logout", True),
        ("/review", True),
        ("/review/denies", True),
        ("/static/style.css", True),
        ("/reviewer", False),
        ("/policy", False),
        ("/metrics", False),
        ("//review", False),
    ],
)
def test_pages_of_people(path: str, is_page: bool) -> None:
    assert is_browser_path(path) is is_page
    assert wants_page(make_mocked_request("GET", path)) is is_page
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    assert wants_page(make_mocked_request("GET", path, headers=browser))


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Basic abc", ""),
        ("abc", ""),
        ("", ""),
    ],
)
def test_bearer(header: str, token: str) -> None:
    assert bearer(make_mocked_request("GET", "/", headers={"Authorization": header})) == token

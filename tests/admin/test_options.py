"""Where the admin listener may be, and with what token."""

from __future__ import annotations

from pathlib import Path

import pytest

from egressproxy.admin.options import AdminOptions, admin_options, read_token
from egressproxy.errors import ServiceError
from egressproxy.service.options import Endpoint

TOKEN = "correct-horse-battery-staple"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


def test_none() -> None:
    assert admin_options("none", "") is None


@pytest.mark.parametrize("place", ["127.0.0.1:9090", "127.1.2.3:0", "[::1]:9090"])
def test_loopback_needs_no_token(place: str) -> None:
    options = admin_options(place, "")
    assert options
    assert options.checks_host
    assert not options.token


@pytest.mark.parametrize("place", ["0.0.0.0:9090", "[::]:9090", ":9090", "10.0.0.4:9090"])
def test_public_needs_a_token(place: str, token_file: Path) -> None:
    with pytest.raises(ServiceError) as caught:
        admin_options(place, "")
    assert "--admin-token-file" in caught.value.hint
    options = admin_options(place, read_token(token_file))
    assert options
    assert options.token == TOKEN
    assert not options.checks_host


def test_a_token_that_reads(token_file: Path) -> None:
    token = read_token(token_file)
    options = admin_options("0.0.0.0:9090", "", token)
    assert options
    assert options.has_tokens
    assert (options.token, options.read_token) == ("", token)
    with pytest.raises(ServiceError, match="may change everything"):
        admin_options("127.0.0.1:9090", token, token)


def test_unix() -> None:
    options = admin_options("unix:/run/e.sock", "")
    assert options == AdminOptions(Path("/run/e.sock"))
    assert not options.checks_host
    assert str(options) == "unix:/run/e.sock"


def test_text() -> None:
    assert str(AdminOptions(Endpoint("::1", 80))) == "http://[::1]:80"


@pytest.mark.parametrize("place", ["", "9090", "localhost:9090", "unix"])
def test_no_place(place: str) -> None:
    with pytest.raises(ServiceError):
        admin_options(place, "")


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"short", b"two words of a token", b"x" * 5000, b"\xff" * 20, b"a" * 16 + b"\nb"],
    ids=["empty", "line", "short", "spaces", "long", "binary", "two lines"],
)
def test_no_token(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ServiceError):
        read_token(path)


def test_a_missing_token_file(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="cannot be read"):
        read_token(tmp_path / "none")

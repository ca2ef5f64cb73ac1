"""What a request says of itself, read without belief; and ``RefusedError``, the answer to some."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

from egressproxy.admin.static_files import PREFIX as STATIC

if TYPE_CHECKING:
    from aiohttp import web

LOGIN: Final = "/login"
MAX_FIELDS: Final = 20
"""Fields of a form."""


class RefusedError(Exception):
    """A request that is not answered: why, and what to do; shown as JSON or as a page."""

    def __init__(
        self, status: int, message: str, hint: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.hint = hint
        self.headers = headers or {}


def is_browser_path(path: str) -> bool:
    """Whether a person asks for it in a browser: its errors are pages, its changes are forms."""
    return path in ("/", LOGIN, "/logout", "/review") or path.startswith(("/review/", STATIC))


def wants_page(request: web.Request) -> bool:
    """Whether an error is to be a page: of a browser path, or where a browser says so."""
    return is_browser_path(request.path) or "text/html" in request.headers.get("Accept", "")


def is_this_machine(host: str) -> bool:
    """Whether a Host header names the machine itself: ``localhost`` or a loopback address."""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdigit():
        name = host
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def address_of(request: web.Request) -> str:
    """Whom a rate is counted for; over a unix socket all are one."""
    return request.remote or "unix"


def bearer(request: web.Request) -> str:
    """The token of the Authorization header, or nothing (RFC 6750 section 2.1)."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def form_of(request: web.Request) -> dict[str, str]:
    """The fields of a form, each once.

    Raises:
        RefusedError: it is not a form as browsers send it.
        HTTPRequestEntityTooLarge: it is longer than the server allows.
    """
    if request.content_type != "application/x-www-form-urlencoded":
        raise RefusedError(415, "a form is wanted, as a browser sends it")
    # Not request.post(), which believes the charset that a client names.
    text = (await request.read()).decode("utf-8", "replace")
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError as error:
        raise RefusedError(400, "too many fields") from error


def local_path(text: str) -> str:
    """Where to go after the login: a path of ours, else the start."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return "/review"
    is_ours = not parts.scheme and not parts.netloc and text.isprintable() and "\\" not in text
    is_path = text.startswith("/") and not text.startswith("//")
    return text if is_ours and is_path and parts.path != LOGIN else "/review"

"""Who may ask the admin listener: checks in front of every page, and headers on every answer.

- A listener on loopback answers only requests whose Host is this machine. A page in a browser on
  the machine can have its own name resolve to 127.0.0.1 (DNS rebinding), but not send another Host.
- With a token, every page but the health pages wants ``Authorization: Bearer TOKEN``, compared in
  constant time.
- A request that changes something wants the header ``X-Egressproxy`` (or the token), which a
  browser sends to another origin only after a preflight that is never granted (CSRF).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from egressproxy.admin.options import AdminOptions

CHANGE_HEADER: Final = "X-Egressproxy"
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "egressproxy",
    "X-Content-Type-Options": "nosniff",
}


def guarded(options: AdminOptions) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The middleware that holds every request to the rules of this module."""

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        response: web.StreamResponse | None = refusal(request, options)
        if response is None:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = answer({"error": error.reason}, status=error.status)
                if "Allow" in error.headers:
                    response.headers["Allow"] = error.headers["Allow"]
        response.headers.update(SECURITY_HEADERS)
        return response

    return guard


def refusal(request: web.Request, options: AdminOptions) -> web.Response | None:
    """Why a request is not answered, or ``None`` where it is."""
    # Not request.host, which asks the system's resolver, and waits, where there is no Host; that is
    # HTTP/1.0 (aiohttp refuses it in 1.1), which no browser speaks.
    host = request.headers.get("Host")
    if options.checks_host and host is not None and not is_this_machine(host):
        return answer(
            {"error": "the Host header does not name this machine", "hint": "ask 127.0.0.1"},
            status=421,
        )
    has_token = bool(options.token) and _same(_bearer(request), options.token)
    if options.token and not has_token and request.path not in OPEN_PATHS:
        response = answer({"error": "a token is wanted"}, status=401)
        response.headers["WWW-Authenticate"] = "Bearer"
        return response
    if (
        request.method not in SAFE_METHODS
        and not has_token
        and CHANGE_HEADER not in request.headers
    ):
        return answer(
            {
                "error": f"the header {CHANGE_HEADER} is wanted",
                "hint": f"curl -X {request.method} -H '{CHANGE_HEADER}: yes' …{request.path}",
            },
            status=403,
        )
    return None


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


def answer(body: dict[str, object], *, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.json_response(
        text=json.dumps(body, indent=1, ensure_ascii=False) + "\n", status=status
    )


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _same(given: str, token: str) -> bool:
    # Digests first: compare_digest alone tells the length, and takes no text outside ASCII.
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, token))
    return hmac.compare_digest(*digests)

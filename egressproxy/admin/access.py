"""Who may ask the admin listener: checks in front of every page, and headers on every answer.

- A listener on loopback answers only requests whose Host is this machine. A page in a browser on
  the machine can have its own name resolve to 127.0.0.1 (DNS rebinding), but not send another Host.
- With tokens, every page but the health pages and the login wants one: ``Authorization: Bearer
  TOKEN``, or the cookie of a session that began with one. Tokens are compared in constant time.
  The read token reads; the token also changes. Without tokens whoever reaches us may do both.
- A program that changes something sends the header ``X-Egressproxy`` (or a token), which a browser
  sends to another origin only after a preflight that is never granted; a form of ours carries the
  token of its cookie (CSRF).
- Browser pages are held to a rate, as are wrong tokens; strangers use up no rate but their own.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from aiohttp import web

from egressproxy.admin.rates import (
    LOGIN_OF_ALL,
    LOGIN_OF_ONE,
    PAGES_OF_ALL,
    PAGES_OF_ONE,
    Rates,
)
from egressproxy.admin.request import (
    LOGIN,
    RefusedError,
    address_of,
    bearer,
    form_of,
    is_browser_path,
    is_this_machine,
    wants_page,
)
from egressproxy.admin.sessions import Right, Sessions, new_id
from egressproxy.admin.static_files import PREFIX as STATIC

if TYPE_CHECKING:
    from egressproxy.admin.options import AdminOptions

CHANGE_HEADER: Final = "X-Egressproxy"
FORM_FIELD: Final = "form_token"
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "egressproxy",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks. ``cookie`` is what forms are bound to; ``is_new`` says that it must be set."""

    right: Right
    cookie: str
    is_new: bool
    has_session: bool

    @property
    def may_change(self) -> bool:
        """Whether buttons that change something are shown, and obeyed."""
        return self.right >= Right.CHANGE


VISITOR: Final = web.RequestKey("visitor", Visitor)
NOBODY: Final = Visitor(Right.NONE, "", is_new=True, has_session=False)


class Access:
    """Judges requests; one for each listener.

    ``logins`` counts wrong tokens, at the login page and in headers.
    """

    def __init__(self, options: AdminOptions, cookie: str = "egressproxy") -> None:
        self.options = options
        self.cookie = cookie
        self.sessions = Sessions()
        self.logins = Rates(LOGIN_OF_ONE, LOGIN_OF_ALL)
        self._pages = Rates(PAGES_OF_ONE, PAGES_OF_ALL)
        self._strangers = Rates(PAGES_OF_ONE, PAGES_OF_ALL)

    def admit(self, request: web.Request) -> None:
        """Let a request pass; ``request[VISITOR]`` then says who asks.

        Raises:
            RefusedError: it is not answered.
            HTTPSeeOther: a browser has to log in first.
        """
        self._check_host(request)
        visitor = request[VISITOR] = self._visitor(request)
        if is_browser_path(request.path):
            self._check_pace(request, visitor)
        if _is_open(request.path):
            if request.method not in SAFE_METHODS and not is_browser_path(request.path):
                _check_change(request, visitor)
            return
        if visitor.right is Right.NONE:
            self._ask_for_token(request)
        if request.method not in SAFE_METHODS:
            _check_change(request, visitor)

    async def admit_form(self, request: web.Request) -> None:
        """Let a form of a browser page pass.

        Raises:
            RefusedError: it is not one that we gave to this visitor.
        """
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        text = (await form_of(request)).get(FORM_FIELD, "")
        cookie = "" if request[VISITOR].is_new else request[VISITOR].cookie
        is_ours = self.sessions.is_form_token(text, cookie)
        if site != "same-origin" or not is_ours:
            raise RefusedError(
                403,
                "this form is not from here, or too old",
                hint="go back, load the page again, and try once more; cookies must be allowed",
            )

    def right_of(self, token: str) -> Right:
        """What a token gives."""
        options = self.options
        found = Right.NONE
        if options.read_token and _same(token, options.read_token):
            found = Right.READ
        if options.token and _same(token, options.token):
            found = Right.CHANGE
        return found

    def keep_cookie(self, request: web.Request, response: web.Response, value: str) -> None:
        """Give the visitor a cookie, for as long as the browser is open."""
        response.set_cookie(
            self.cookie,
            value,
            path="/",
            httponly=True,
            samesite="Strict",
            # Believed of whoever says so: it makes the cookie of its own sender stricter.
            secure=request.secure or request.headers.get("X-Forwarded-Proto") == "https",
        )

    def _check_host(self, request: web.Request) -> None:
        # Not request.host, which asks the system's resolver, and waits, where there is no Host;
        # that is HTTP/1.0 (aiohttp refuses it in 1.1), which no browser speaks.
        host = request.headers.get("Host")
        if self.options.checks_host and host is not None and not is_this_machine(host):
            raise RefusedError(
                421, "the Host header does not name this machine", hint="ask 127.0.0.1"
            )

    def _visitor(self, request: web.Request) -> Visitor:
        id_ = request.cookies.get(self.cookie, "")
        session = self.sessions.find(id_)
        cookie = id_ or new_id()
        if token := bearer(request):
            right = self.right_of(token)
            if right is Right.NONE and self.options.has_tokens:
                self.logins.spend(address_of(request))
        else:
            right = session.right if session else Right.NONE
        if not self.options.has_tokens:
            right = Right.CHANGE
        return Visitor(right, cookie, is_new=not id_, has_session=session is not None)

    def _check_pace(self, request: web.Request, visitor: Visitor) -> None:
        """Strangers have a pace of their own: they slow down nobody who is logged in."""
        if request.path.startswith(STATIC):
            return
        address = address_of(request)
        rates = self._pages if visitor.right else self._strangers
        if wait_s := rates.wait_s(address):
            raise too_often("pages", wait_s)
        rates.spend(address)

    def _ask_for_token(self, request: web.Request) -> None:
        if wants_page(request) and request.method in SAFE_METHODS and not bearer(request):
            raise web.HTTPSeeOther(f"{LOGIN}?{_next(request)}" if _next(request) else LOGIN)
        wait_s = self.logins.wait_s(address_of(request)) if bearer(request) else 0.0
        if wait_s:
            raise too_often("wrong tokens", wait_s)
        raise RefusedError(401, "a token is wanted", headers={"WWW-Authenticate": "Bearer"})


def cookie_name(gateway: str) -> str:
    """A name of its own for each gateway: tunnels to several have one host name, and its cookies.

    It tells nothing of the gateway.
    """
    return f"egressproxy-{hashlib.sha256(gateway.encode()).hexdigest()[:12]}"


def too_often(what: str, wait_s: float) -> RefusedError:
    """The refusal of somebody who is too fast."""
    seconds = max(1, math.ceil(wait_s))
    return RefusedError(
        429,
        f"too many {what}",
        hint=f"try again in {seconds} s",
        headers={"Retry-After": str(seconds)},
    )


def answer(body: dict[str, object], *, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.json_response(
        text=json.dumps(body, indent=1, ensure_ascii=False) + "\n", status=status
    )


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path == LOGIN or path.startswith(STATIC)


def _next(request: web.Request) -> str:
    return "" if request.path == "/" else urlencode({"next": request.path_qs})


def _check_change(request: web.Request, visitor: Visitor) -> None:
    """A change wants the right, and a sign that no page of another origin can give."""
    if visitor.right < Right.CHANGE and request.path != "/logout":
        raise RefusedError(
            403,
            "this token reads and changes nothing",
            hint="the token of --admin-token-file may",
        )
    if is_browser_path(request.path) or bearer(request) or CHANGE_HEADER in request.headers:
        return
    raise RefusedError(
        403,
        f"the header {CHANGE_HEADER} is wanted",
        hint=f"curl -X {request.method} -H '{CHANGE_HEADER}: yes' …{request.path}",
    )


def _same(given: str, token: str) -> bool:
    # Digests first: compare_digest alone tells the length, and takes no text outside ASCII.
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, token))
    return hmac.compare_digest(*digests)

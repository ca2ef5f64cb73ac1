"""``/login`` and ``/logout``: a token once, then a session cookie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from egressproxy.admin.access import VISITOR, too_often
from egressproxy.admin.options import MAX_TOKEN_CHARACTERS
from egressproxy.admin.request import address_of, form_of, local_path
from egressproxy.admin.sessions import Right
from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from egressproxy.admin.frame import Frame

TOKEN_FIELD: Final = "token"  # noqa: S105 - the name of a form field


class Login:
    """The handlers of both pages."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def routes(self) -> list[web.RouteDef]:
        """Every page with its path."""
        return [
            web.get("/login", self.form),
            web.post("/login", self.login),
            web.post("/logout", self.logout),
        ]

    async def form(self, request: web.Request) -> web.Response:
        """The form; who needs no token is sent on."""
        if not self._frame.access.options.has_tokens:
            raise web.HTTPSeeOther("/review")
        return await self._form(request, local_path(request.query.get("next", "")))

    async def login(self, request: web.Request) -> web.Response:
        """A session for a token; wrong ones are counted, and too many are not even looked at."""
        access = self._frame.access
        if not access.options.has_tokens:
            raise web.HTTPSeeOther("/review")
        given = await form_of(request)
        target = local_path(given.get("next", ""))
        address = address_of(request)
        if wait_s := access.logins.wait_s(address):
            raise too_often("wrong tokens", wait_s)
        token = given.get(TOKEN_FIELD, "").strip()[: MAX_TOKEN_CHARACTERS + 1]
        right = access.right_of(token)
        if right is Right.NONE:
            access.logins.spend(address)
            journal().warning("wrong token at the login", client=address)
            return await self._form(request, target, error="This is not the token.", status=403)
        access.sessions.end(request[VISITOR].cookie)
        # Not what the browser came with: that may be known to somebody else (session fixation).
        cookie = access.sessions.begin(right)
        journal().info("login", client=address, right=right.name.lower())
        response = web.Response(status=303, headers={"Location": target})
        access.keep_cookie(request, response, cookie)
        return response

    async def logout(self, request: web.Request) -> web.Response:
        """The session ends."""
        access = self._frame.access
        access.sessions.end(request[VISITOR].cookie)
        response = web.Response(status=303, headers={"Location": "/login"})
        response.del_cookie(access.cookie, path="/", httponly=True, samesite="Strict")
        return response

    async def _form(
        self, request: web.Request, target: str, *, error: str = "", status: int = 200
    ) -> web.Response:
        return await self._frame.page(
            request, "login.html", status=status, target=target, error=error
        )

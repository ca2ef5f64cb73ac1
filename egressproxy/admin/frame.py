"""The frame of every browser page: what stands around its content, and how it is answered.

A page is a handler that asks ``Frame.data`` and returns ``await frame.page(request, "x.html",
…)``. Its template extends ``base.html``, which has navigation, the policy in force and the login;
what the template wants beside ``frame`` is given by name.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from egressproxy.admin.access import FORM_FIELD, NOBODY, VISITOR, Access, Visitor
from egressproxy.admin.render import render
from egressproxy.admin.request import bearer

if TYPE_CHECKING:
    from egressproxy.admin.review_data import ReviewData
    from egressproxy.service.generation import Generation
    from egressproxy.service.report import ReloadReport
    from egressproxy.service.supervisor import Supervisor

NAVIGATION: Final = (
    ("/review", "Overview"),
    ("/review/denies", "Denies"),
    ("/review/suggestions", "Suggestions"),
    ("/review/rules", "Rules"),
    ("/review/flows", "Flows now"),
    ("/review/reloads", "Reloads"),
    ("/review/catalog", "Catalog"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What ``base.html`` shows around a page; to nobody in particular it shows no policy."""

    path: str
    gateway: str
    visitor: Visitor
    has_login: bool
    form_token: str
    phase: str = ""
    is_ready: bool = False
    generation: Generation | None = None
    last_reload: ReloadReport | None = None
    navigation: tuple[tuple[str, str], ...] = NAVIGATION
    form_field: str = FORM_FIELD


@dataclass(frozen=True, slots=True)
class Frame:
    """What every browser page is given."""

    supervisor: Supervisor
    access: Access
    data: ReviewData

    async def page(
        self, request: web.Request, template: str, *, status: int = 200, **context: object
    ) -> web.Response:
        """A page of a template; rendered in a thread, because some are long."""
        around = self._around(request)
        text = await asyncio.to_thread(render, template, {"frame": around, **context})
        response = web.Response(text=text, content_type="text/html", status=status)
        if around.visitor.is_new and around.visitor.cookie and not bearer(request):
            self.access.keep_cookie(request, response, around.visitor.cookie)
        return response

    def _around(self, request: web.Request) -> Around:
        supervisor, visitor = self.supervisor, request.get(VISITOR, NOBODY)
        common = {
            "path": request.path,
            "visitor": visitor,
            "has_login": self.access.options.has_tokens,
            "form_token": self.access.sessions.form_token(visitor.cookie),
        }
        if not visitor.right:
            return Around(gateway="", **common)
        return Around(
            gateway=supervisor.options.gateway,
            phase=str(supervisor.phase),
            is_ready=supervisor.is_ready,
            generation=supervisor.crew.current if supervisor.crew else None,
            last_reload=supervisor.last_reload,
            **common,
        )

"""``/review/reloads``: every reload with what changed, and the button for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from egressproxy.admin.request import form_of
from egressproxy.errors import ServiceError
from egressproxy.service.report import Outcome, ReloadReport, Trigger

if TYPE_CHECKING:
    from egressproxy.admin.frame import Frame

MAX_LINES: Final = 200
"""Changes, or problems, of one reload that are shown."""


class Reloads:
    """The handlers of the page."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def routes(self) -> list[web.RouteDef]:
        """The page with its paths."""
        return [
            web.get("/review/reloads", self.history),
            web.post("/review/reloads", self.reload),
        ]

    async def history(self, request: web.Request) -> web.Response:
        """The latest first."""
        return await self._page(request)

    async def reload(self, request: web.Request) -> web.Response:
        """Reload now; a page that is loaded again afterwards does not do it again."""
        forced = (Trigger.FORCED,) if (await form_of(request)).get("force") == "1" else ()
        try:
            await self._frame.supervisor.reload(Trigger.ADMIN, *forced)
        except ServiceError as error:
            return await self._page(request, failure=str(error), status=503)
        raise web.HTTPSeeOther("/review/reloads")

    async def _page(
        self, request: web.Request, *, failure: str = "", status: int = 200
    ) -> web.Response:
        reloads = list(reversed(self._frame.supervisor.reloads))
        return await self._frame.page(
            request,
            "reloads.html",
            status=status,
            reloads=reloads,
            can_force=bool(reloads) and is_held_back(reloads[0]),
            headline=headline,
            failure=failure,
            max_lines=MAX_LINES,
        )


def is_held_back(report: ReloadReport) -> bool:
    """Whether a good policy was refused for what it would newly deny, which force overrides."""
    return report.outcome is Outcome.REFUSED and not report.problems


def headline(report: ReloadReport) -> str:
    """What became of a reload, in a sentence."""
    if report.outcome is Outcome.UNCHANGED:
        return "The files say what is in force already."
    if report.outcome is Outcome.FAILED:
        return "It could not be put in force everywhere; the old policy stays."
    if report.outcome is Outcome.REFUSED:
        return "It was refused; the old policy stays."
    if Trigger.START in report.triggers:
        return "The service started with it."
    closed = report.installation.revoked + report.forwarded.revoked
    kept = report.installation.kept + report.forwarded.kept
    ended = f"{closed:,} open flows that it denies were closed" if closed else "no flow was closed"
    left = f", {kept:,} were left open" if kept else ""
    workers = report.installation.workers
    everywhere = f"In force in {workers} workers" if workers != 1 else "In force in one worker"
    return f"{everywhere}; {ended}{left}."

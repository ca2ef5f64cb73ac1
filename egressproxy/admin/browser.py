"""The pages for people, all of them: routes of the modules that make them.

====== ==================== =======================================================================
method path                 page
====== ==================== =======================================================================
GET    /                    goes to ``/review``
GET    /review              overview: denies over time, classes, commonest names and sources
GET    /review/live         denies as they are stored, as server-sent events
GET    /review/reloads      every reload: when, why, what changed, every problem
POST   /review/reloads      reloads now; wants the right to change, and the form's token
GET    /login               asks for a token, where one is wanted
POST   /login               begins a session
POST   /logout              ends it
GET    /review/denies       what was denied (or allowed), filtered, grouped, in pages
GET    /review/denies.csv   the same lines as a file
GET    /review/denies.json  the same as JSON
GET    /review/name         one name: who, when, why, what would help
GET    /review/suggestions  what would let missing flows through, tried on recorded ones
GET    /review/rules        the policy in force, rule by rule, with what used each
GET    /review/flows        what is open now: tunnels, ALPN, who is busy
GET    /review/catalog      the documented requirements, browsed and searched
GET    /static/{name}       style sheet, script, icon
====== ==================== =======================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from egressproxy.admin.catalog_page import CatalogPage
from egressproxy.admin.flows_page import FlowsPage
from egressproxy.admin.later import LaterPages
from egressproxy.admin.login import Login
from egressproxy.admin.reloads import Reloads
from egressproxy.admin.static_files import PREFIX, static_file

if TYPE_CHECKING:
    from egressproxy.admin.frame import Frame

_DENIES: Final = ("denies_page", "DeniesPage")
_LATER: Final = {
    "/review": ("overview", "Overview"),
    "/review/live": ("live", "Live"),
    "/review/denies": _DENIES,
    "/review/denies.csv": _DENIES,
    "/review/denies.json": _DENIES,
    "/review/name": ("name_page", "NamePage"),
    "/review/suggestions": ("suggestions_page", "SuggestionsPage"),
    "/review/rules": ("rules_page", "RulesPage"),
}


def add_browser_pages(application: web.Application, frame: Frame) -> None:
    """Serve every page for people; a new page's module is added here."""
    later = LaterPages(frame, _LATER)
    application.on_shutdown.append(later.end)
    application.add_routes(
        [
            web.get("/", _start),
            web.get(f"{PREFIX}{{name}}", static_file),
            *Login(frame).routes(),
            *later.routes(),
            *FlowsPage(frame).routes(),
            *CatalogPage(frame).routes(),
            *Reloads(frame).routes(),
        ]
    )


async def _start(_: web.Request) -> web.Response:
    raise web.HTTPSeeOther("/review")

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

from typing import TYPE_CHECKING

from aiohttp import web

from egressproxy.admin.catalog_page import CatalogPage
from egressproxy.admin.denies_page import DeniesPage
from egressproxy.admin.flows_page import FlowsPage
from egressproxy.admin.live import Live
from egressproxy.admin.login import Login
from egressproxy.admin.name_page import NamePage
from egressproxy.admin.overview import Overview
from egressproxy.admin.reloads import Reloads
from egressproxy.admin.rules_page import RulesPage
from egressproxy.admin.static_files import PREFIX, static_file
from egressproxy.admin.suggestions_page import SuggestionsPage

if TYPE_CHECKING:
    from egressproxy.admin.frame import Frame


def add_browser_pages(application: web.Application, frame: Frame) -> None:
    """Serve every page for people; a new page's module is added here."""
    live = Live(frame)
    application.on_shutdown.append(live.end)
    application.add_routes(
        [
            web.get("/", _start),
            web.get(f"{PREFIX}{{name}}", static_file),
            *Login(frame).routes(),
            *Overview(frame).routes(),
            *live.routes(),
            *DeniesPage(frame).routes(),
            *NamePage(frame).routes(),
            *SuggestionsPage(frame).routes(),
            *RulesPage(frame).routes(),
            *FlowsPage(frame).routes(),
            *CatalogPage(frame).routes(),
            *Reloads(frame).routes(),
        ]
    )


async def _start(_: web.Request) -> web.Response:
    raise web.HTTPSeeOther("/review")

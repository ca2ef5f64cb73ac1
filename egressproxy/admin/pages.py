"""The admin pages: health, readiness, metrics, policy, reload.

====== ========= ==========================================================================
method path      answer
====== ========= ==========================================================================
GET    /healthz  200 while the supervisor answers at all
GET    /readyz   200 when every worker serves the current policy, else 503
GET    /metrics  Prometheus text or OpenMetrics, by Accept
GET    /policy   the policy in force: digest, rules, files, outcome of the last reload
POST   /reload   reloads and waits: 200 in force, 422 the policy is bad (every problem)
                 or would newly deny too much (not asked with ``?force=1``), 503 it could
                 not be taken now, or the service is starting or ending
====== ========= ==========================================================================
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from egressproxy.admin.access import answer
from egressproxy.admin.views import policy_page, readiness
from egressproxy.errors import ServiceError
from egressproxy.service.report import Outcome, Trigger, report_view

if TYPE_CHECKING:
    from egressproxy.service.supervisor import Supervisor

_STATUS: Final = {
    Outcome.APPLIED: 200,
    Outcome.UNCHANGED: 200,
    Outcome.REFUSED: 422,
    Outcome.FAILED: 503,
}


class Pages:
    """The handlers; ``registry`` holds what ``/metrics`` shows."""

    def __init__(self, supervisor: Supervisor, registry: CollectorRegistry) -> None:
        self._supervisor = supervisor
        self._registry = registry

    def routes(self) -> list[web.RouteDef]:
        """Every page with its path."""
        return [
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
            web.get("/policy", self.policy),
            web.post("/reload", self.reload),
        ]

    async def healthz(self, _: web.Request) -> web.Response:
        """The supervisor's loop turns."""
        return answer({"status": "ok", "phase": str(self._supervisor.phase)})

    async def readyz(self, _: web.Request) -> web.Response:
        """Whether to send clients here."""
        body = readiness(self._supervisor)
        return answer(body, status=200 if body["ready"] else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """All counters of all workers."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = await asyncio.to_thread(encode, self._registry)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def policy(self, _: web.Request) -> web.Response:
        """What is in force."""
        crew = self._supervisor.crew
        if crew is None:
            return answer({"error": "the policy is not loaded yet"}, status=503)
        report = self._supervisor.last_reload
        return answer(await asyncio.to_thread(policy_page, crew.current, report))

    async def reload(self, request: web.Request) -> web.Response:
        """Reload now; with ``?force=1`` however many flows it newly denies."""
        forced = (Trigger.FORCED,) if request.query.get("force") == "1" else ()
        try:
            report = await self._supervisor.reload(Trigger.ADMIN, *forced)
        except ServiceError as error:
            return answer({"error": error.message}, status=503)
        return answer(report_view(report), status=_STATUS[report.outcome])

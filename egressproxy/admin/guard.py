"""The middleware in front of every page: access, errors as JSON or as pages, headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from egressproxy.admin.access import (
    SAFE_METHODS,
    SECURITY_HEADERS,
    answer,
)
from egressproxy.admin.request import RefusedError, is_browser_path, wants_page
from egressproxy.admin.review_data import TroubleError
from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from egressproxy.admin.access import Access
    from egressproxy.admin.frame import Frame

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def guarded(access: Access, frame: Frame) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The middleware that holds every request to the rules of ``access``."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await _respond(access, frame, request, handler)
        if not response.prepared:
            response.headers.update(SECURITY_HEADERS)
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    return guard


async def _respond(
    access: Access, frame: Frame, request: web.Request, handler: Handler
) -> web.StreamResponse:
    """What a page answers, or why there is none."""
    try:
        access.admit(request)
        if request.method not in SAFE_METHODS and is_browser_path(request.path):
            await access.admit_form(request)
        return await handler(request)
    except RefusedError as refused:
        return await _refusal(frame, request, refused)
    except TroubleError as trouble:
        without = RefusedError(trouble.status, trouble.message, trouble.hint)
        return await _refusal(frame, request, without, trouble.example)
    except web.HTTPRedirection as elsewhere:
        return web.Response(
            status=elsewhere.status, headers={"Location": elsewhere.headers["Location"]}
        )
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return await _refusal(frame, request, RefusedError(error.status, error.reason, "", headers))
    except Exception as error:  # noqa: BLE001 - a defect costs one answer, which has our headers too
        journal().error("fault in an admin page", path=request.path, exc_info=error)
        fault = RefusedError(500, "a fault of ours", hint="the service's journal has it")
        return await _refusal(frame, request, fault)


async def _refusal(
    frame: Frame, request: web.Request, refused: RefusedError, example: str = ""
) -> web.Response:
    if wants_page(request):
        response = await frame.page(
            request,
            "error.html",
            status=refused.status,
            code=refused.status,
            message=refused.message,
            hint=refused.hint,
            example=example,
        )
    else:
        body: dict[str, object] = {"error": refused.message}
        if refused.hint:
            body["hint"] = refused.hint
        response = answer(body, status=refused.status)
    response.headers.update(refused.headers)
    return response

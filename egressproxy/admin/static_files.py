"""``/static/…``: the few files beside the pages, read once from the package."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from aiohttp import web

PREFIX: Final = "/static/"
_TYPES: Final = {
    "style.css": "text/css",
    "live.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """``version`` is of its content, and part of the address that pages use."""

    content: bytes
    content_type: str
    version: str


@cache
def static_files() -> dict[str, StaticFile]:
    """Every file by name; blocks the first time."""
    folder = files("egressproxy.admin") / "static"
    found = {}
    for name, content_type in _TYPES.items():
        content = (folder / name).read_bytes()
        found[name] = StaticFile(content, content_type, hashlib.sha256(content).hexdigest()[:12])
    return found


def address_of(name: str) -> str:
    """The address of a file, which changes with its content, so that it may be kept for ever."""
    return f"{PREFIX}{name}?v={static_files()[name].version}"


async def static_file(request: web.Request) -> web.Response:
    """One file; browsers keep what they asked for by version."""
    found = static_files().get(request.match_info["name"])
    if found is None:
        raise web.HTTPNotFound(reason="no such file")
    is_exact = request.query.get("v") == found.version
    return web.Response(
        body=found.content,
        content_type=found.content_type,
        charset="utf-8",
        headers={"Cache-Control": "max-age=31536000, immutable" if is_exact else "no-cache"},
    )

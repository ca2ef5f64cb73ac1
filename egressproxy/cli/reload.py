"""``egressproxy reload``: the running service reloads its policy, and says what became of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import click

from egressproxy.admin.access import CHANGE_HEADER
from egressproxy.admin.options import admin_options, read_token
from egressproxy.cli import run
from egressproxy.cli.main import EXIT_ALLOW, EXIT_DENY, EXIT_ERROR
from egressproxy.cli.reload_page import reload_page
from egressproxy.errors import EgressproxyError, ServiceError
from egressproxy.service.configuration import Problems
from egressproxy.service.firewall_configuration import FIREWALL_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from egressproxy.admin.options import AdminOptions

ANSWER_S: Final = 120.0
"""Loading, the flows of the last day where a reload is held against them, every worker."""
MAX_ANSWER_BYTES: Final = 32 << 20
_EXITS: Final = {"applied": EXIT_ALLOW, "unchanged": EXIT_ALLOW, "refused": EXIT_DENY}
_EXAMPLES: Final = """\b
egressproxy reload
egressproxy reload --config /etc/egressproxy/config.yaml --force
egressproxy reload --admin unix:/run/egressproxy/admin.sock --json
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to ask: ``url`` without a path, over the unix socket ``socket`` where there is one."""

    url: str
    socket: Path | None
    token: str


@click.command(name="reload", epilog=_EXAMPLES)
@click.option(
    "--admin",
    metavar="ADDR:PORT|unix:PATH",
    help=f"The service's admin listener.  [default: {run.DEFAULT_ADMIN}]",
)
@click.option("--admin-token-file", metavar="FILE", help="The token that it wants, if any.")
@click.option(
    "--config", type=click.Path(path_type=Path), help="The service's config file, which has both."
)
@click.option("--force", is_flag=True, help="However many flows of the last day it newly denies.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as POST /reload answers.")
def command(config: Path | None, *, force: bool, as_json: bool, **given: str | None) -> None:
    """Reload the policy of the running service, and say what has changed or what is wrong.

    A policy with problems changes nothing, nor does one that would newly deny more flows of the
    last day than --review-max-newly-denied accepts, without --force. Ends with 0 where the files
    are in force, with 1 where they were refused, with 2 where it could not be done or asked.
    """
    place = read_place(config, given, os.environ)
    view = asyncio.run(ask(place, force=force))
    if as_json:
        click.echo(json.dumps(view, indent=1))
    else:
        for line in reload_page(view):
            click.echo(line)
    sys.exit(_EXITS.get(view["outcome"], EXIT_ERROR))


def read_place(
    config: Path | None, given: Mapping[str, str | None], environment: Mapping[str, str]
) -> Place:
    """Where the admin listener is, from the command line, the environment and the service's file.

    Raises:
        ServiceError: there is none, or its place or token cannot be read.
    """
    problems = Problems()
    flags = {name: (value,) for name, value in given.items() if value}
    known = run.NAMES | FIREWALL_NAMES
    sources = run.read_sources(config, flags, environment, known, problems)
    problems.raise_all()
    token_file = sources.one("admin_token_file")
    token = read_token(Path(token_file)) if token_file else ""
    # A service that listens for others has a token; whether we need it is the service's to say.
    admin = admin_options(sources.one("admin", run.DEFAULT_ADMIN), token or "unknown")
    if admin is None:
        raise ServiceError(
            "the service has no admin listener", hint="systemctl reload egressproxy (SIGHUP)"
        )
    return _place(admin, token)


def _place(admin: AdminOptions, token: str) -> Place:
    if isinstance(admin.place, Path):
        return Place("http://localhost", admin.place, token)
    address = ip_address(admin.place.address)
    if address.is_unspecified:  # listens everywhere, so here too
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    host = f"[{address}]" if address.version == 6 else str(address)
    return Place(f"http://{host}:{admin.place.port}", None, token)


async def ask(place: Place, *, force: bool) -> dict[str, Any]:
    """What ``POST /reload`` answers.

    Raises:
        ServiceError: nobody answers there, or not as our service does.
    """
    connector = aiohttp.UnixConnector(str(place.socket)) if place.socket else None
    headers = {CHANGE_HEADER: "yes"}
    if place.token:
        headers["Authorization"] = f"Bearer {place.token}"
    where = f"unix:{place.socket}" if place.socket else place.url
    limit = aiohttp.ClientTimeout(total=ANSWER_S)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=limit, headers=headers) as session,
            session.post(
                f"{place.url}/reload", params={"force": "1"} if force else {}, allow_redirects=False
            ) as response,
        ):
            body = await response.content.read(MAX_ANSWER_BYTES)
            return _view(body, response.status, where)
    except TimeoutError as error:
        raise ServiceError(f"{where} did not answer within {ANSWER_S:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise ServiceError(
            f"{where} cannot be asked: {_why(error)}",
            hint="is the service running? --admin says where it listens, --config reads it",
        ) from error


def _view(body: bytes, status: int, where: str) -> dict[str, Any]:
    try:
        view = json.loads(body)
    except (ValueError, RecursionError):
        view = None
    if isinstance(view, dict) and isinstance(view.get("outcome"), str):
        return view
    if isinstance(view, dict) and isinstance(view.get("error"), str):
        raise _refusal(status, view["error"])
    raise ServiceError(f"{where} answers {status}, and not as egressproxy does")


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # the library's own text says it twice
    return str(error) or type(error).__name__


def _refusal(status: int, said: str) -> EgressproxyError:
    hint = "--admin-token-file FILE" if status in (401, 403) else ""
    return ServiceError(f"the service says: {said}", hint=hint)

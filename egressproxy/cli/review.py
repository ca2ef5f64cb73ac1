"""``egressproxy review import|status``: logs of other gateways into a store, and what it holds."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from egressproxy.cli.listing import colour
from egressproxy.cli.main import EXIT_ERROR
from egressproxy.cli.review_page import number, size
from egressproxy.cli.store_option import default_place, store_option, warnings_of
from egressproxy.errors import StoreError
from egressproxy.review.bounds import Bounds
from egressproxy.review.formats import printable, stamp
from egressproxy.review.holdings import Holdings, holdings
from egressproxy.review.importing import import_file
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from egressproxy.review.importing import Imported

IMPORT_EXAMPLES: Final = """\b
egressproxy review import --gateway hub-2 flows.jsonl flows.jsonl.*.gz --store review.db
ssh hub-2 cat /var/log/egressproxy/flows.jsonl | egressproxy review import --gateway hub-2 -
"""

_BOUNDS: Final = Bounds(max_age_days=36_600, max_bytes=1 << 50)
"""An import forgets nothing: the gateway whose store it is does, by its own settings."""
_LATE_S: Final = 3600
_MAKE_ONE: Final = "--store review.db makes one, which the other commands read by the same option"


@click.group()
def command() -> None:
    """The store of the review: read logs into it, see what it holds."""


@command.command("import", epilog=IMPORT_EXAMPLES)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--gateway",
    metavar="NAME",
    help="Whose log it is. Default: this host's name.",
)
@store_option
def import_(files: tuple[str, ...], gateway: str | None, store: str | None) -> None:
    """Read logs into the store, gzip too; - is stdin. A new store is made where there is none.

    What was imported before is not counted twice, also when the file grew or was rotated. Lines
    that are no records are counted and left out. Ends with 2 if a file could not be read.
    """
    is_whole = True
    with open_store(store or default_place(hint=_MAKE_ONE)) as opened:
        writer = Writer(opened, gateway=gateway or socket.gethostname(), bounds=_BOUNDS)
        for file in files:
            try:
                done = import_file(writer, file, now=time.time())
            except StoreError as error:
                click.echo(f"egressproxy: {error}", err=True)
                is_whole = False
                continue
            is_whole = is_whole and not done.problem
            click.echo(_outcome(file, done))
            for warning in warnings_of(Path(file), done):
                click.echo(f"warning: {warning}", err=True)
    if not is_whole:
        sys.exit(EXIT_ERROR)


@command.command()
@store_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(store: str | None, *, as_json: bool) -> None:
    """What the store holds: of which gateways, since when, how much."""
    with open_store(store or default_place(), is_reader=True) as opened:
        found = holdings(opened)
        place, kind = opened.place, opened.dialect
    if as_json:
        click.echo(json.dumps({"store": place, "kind": kind} | _as_json(found), indent=2))
        return
    for line in _page(place, kind, found, time.time()):
        click.echo(line, color=colour())


def _outcome(file: str, done: Imported) -> str:
    said = [f"{number(done.read, 'record')} read"]
    if done.known_bytes:
        said.append(f"{size(done.known_bytes)} known before")
    if done.skipped:
        said.append(f"{done.skipped:,} left out: too old, or stored by the gateway itself")
    return f"{file}: {', '.join(said)}"


def _as_json(found: Holdings) -> dict[str, Any]:
    since = found.records_since
    return {
        "size_bytes": found.size_bytes,
        "subjects": found.subjects,
        "names_seen": found.names,
        "files_imported": found.files,
        "records_since": None if since is None else stamp(since),
        "gateways": [
            {
                "name": each.name,
                "first_seen": stamp(each.first_at),
                "last_seen": stamp(each.last_at),
                "denied": each.denied,
                "allowed": each.allowed,
                "allows_recorded": each.allows,
                "allows_since": None if each.allows_since is None else stamp(each.allows_since),
            }
            for each in found.gateways
        ],
    }


def _page(place: str, kind: str, found: Holdings, now: float) -> Iterator[str]:
    what = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[kind]
    yield f"{place}  {what}, {size(found.size_bytes)}"
    if not found.gateways:
        yield "no records yet"
        return
    yield (
        f"{number(found.subjects, 'combination')} of client, target and verdict,"
        f" {number(found.names, 'name')} ever seen"
    )
    if found.records_since is not None:
        yield f"single records since {stamp(found.records_since)}, counts since the first record"
    width = max(len(printable(each.name)) for each in found.gateways)
    yield ""
    head = f"{'GATEWAY':<{max(width, 7)}}  {'DENIED':>12}  {'ALLOWED':>12}"
    yield click.style(f"{head}  {'FIRST':<20}  {'LAST':<20}  ALLOWS RECORDED", dim=True)
    for each in found.gateways:
        late = now - each.last_at > _LATE_S
        allows = "-"
        if each.allows is not None and each.allows_since is not None:
            allows = f"{each.allows} since {stamp(each.allows_since)}"
        yield (
            f"{printable(each.name):<{max(width, 7)}}  {each.denied:>12,}  {each.allowed:>12,}"
            f"  {stamp(each.first_at)}  "
            + click.style(stamp(each.last_at), fg="yellow" if late else None)
            + f"  {allows}"
        )

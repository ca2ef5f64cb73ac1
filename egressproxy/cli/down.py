"""``egressproxy down``: what ``up`` changed on this machine is put back as it was."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from egressproxy.cli.main import EXIT_ERROR
from egressproxy.kernel.host_state import DEFAULT_STATE, owned
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.takeover import take_back

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.kernel.takeover import Removed


@click.command()
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=DEFAULT_STATE,
    show_default=True,
    envvar="EGRESSPROXY_STATE",
    help="Where the machine's own settings are kept.",
)
@click.option("--force", is_flag=True, help="Go on where something cannot be put back.")
def command(state: Path, *, force: bool) -> None:
    """Take everything back: sysctls, the table, the routing guard, in this order.

    Stop the service first; that alone leaves the table, and so the gateway closed. Can be repeated.
    """
    with owned(state):
        removed = take_back(Nft(), state, force=force)
    for line in _lines(removed):
        click.echo(line)
    for failure in removed.failures:
        click.echo(f"left as it is: {failure}", err=True)
    if removed.failures:
        sys.exit(EXIT_ERROR)


def _lines(removed: Removed) -> Iterator[str]:
    if not (removed.sysctls or removed.table or removed.routing):
        yield "there is nothing of ours on this machine"
        return
    if removed.sysctls:
        yield f"sysctls put back: {len(removed.sysctls)}"
    if removed.table:
        yield "the table is deleted"
    if removed.routing:
        yield "routing rules and routes are removed"

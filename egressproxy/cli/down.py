"""``egressproxy down``: what ``up`` changed on this machine is put back as it was."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from egressproxy.cli.main import EXIT_ERROR
from egressproxy.errors import KernelError
from egressproxy.kernel.host_state import DEFAULT_STATE, owned
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.routing import routing_state
from egressproxy.kernel.sysctls import is_forwarding
from egressproxy.kernel.takeover import take_back

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.kernel.takeover import Removed

_OPEN: Final = (
    "this machine forwards packets that nobody judges: to stop it,"
    " sysctl -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0"
)


state_option: Final = click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=DEFAULT_STATE,
    show_default=True,
    envvar="EGRESSPROXY_STATE",
    help="Where the machine's own settings are kept.",
)


@click.command()
@state_option
@click.option("--force", is_flag=True, help="Go on where something cannot be put back.")
def command(state: Path, *, force: bool) -> None:
    """Take everything back: sysctls, the table, the routing guard, in this order.

    Stop the service first; that alone leaves the table, and so the gateway closed. Can be repeated.
    What --force left as it is, is told, and ends it with 2.
    """
    with owned(state):
        removed = take_back(Nft(), state, force=force)
    for line in _lines(removed):
        click.echo(line)
    for failure in removed.failures:
        click.echo(f"left as it is: {failure}", err=True)
    if removed.failures:
        if _is_open():
            click.echo(_OPEN, err=True)
        sys.exit(EXIT_ERROR)


def _is_open() -> bool:
    """Whether this machine forwards, and nothing of ours stops it."""
    try:
        return is_forwarding() and not routing_state().guard
    except KernelError:
        return is_forwarding()


def _lines(removed: Removed) -> Iterator[str]:
    if not (removed.sysctls or removed.table or removed.routing):
        yield "there is nothing of ours on this machine"
        return
    if removed.sysctls:
        yield "sysctls are as they were before"
    if removed.table:
        yield "the table is deleted"
    if removed.routing:
        yield "routing rules and routes are removed"

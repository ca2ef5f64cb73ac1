"""The ``egressproxy`` command: a table of commands, each loaded when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

import click

from egressproxy.errors import EgressproxyError

EXIT_ALLOW: Final = 0
EXIT_DENY: Final = 1
EXIT_ERROR: Final = 2

COMMANDS: Final = {
    "catalog": "catalog",
    "check": "check",
    "init": "init",
    "policy": "policy",
    "run": "run",
}
"""Command to the module of this package that defines ``command``."""


class LazyGroup(click.Group):
    """A group whose commands are imported on first use, so that ``check`` starts fast."""

    def list_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
    ) -> list[str]:
        """All command names, in the order of ``--help``."""
        return sorted(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """The command, or ``None`` where there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"egressproxy.cli.{COMMANDS[cmd_name]}").command
        if not isinstance(command, click.Command):
            raise TypeError(cmd_name)
        return command


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="egressproxy")
def cli() -> None:
    """Firewall-grade FQDN egress gateway for AKS."""


def main() -> None:
    """Run the command line; an ``EgressproxyError`` is printed to stderr and ends with 2."""
    try:
        cli.main(standalone_mode=True)
    except EgressproxyError as error:
        click.echo(f"egressproxy: {error}", err=True)
        sys.exit(EXIT_ERROR)

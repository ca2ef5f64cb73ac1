"""The ``egressproxy`` command: a table of commands, each loaded when it is asked for."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Final

import click

from egressproxy.errors import EgressproxyError, nearest

EXIT_ALLOW: Final = 0
EXIT_DENY: Final = 1
EXIT_ERROR: Final = 2

COMMANDS: Final = {
    "catalog": "catalog",
    "check": "check",
    "denies": "denies",
    "doctor": "doctor",
    "down": "down",
    "export": "export",
    "flows": "flows",
    "init": "init",
    "nft": "nft",
    "policy": "policy",
    "probe": "probe",
    "reload": "reload",
    "replay": "replay",
    "review": "review",
    "run": "run",
    "suggest": "suggest",
    "tags": "tags",
    "unused": "unused",
    "up": "up",
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a name that is almost a command's is told with that."""
        if args[0] not in COMMANDS and (hint := nearest(args[0], COMMANDS)):
            ctx.fail(f"No such command {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)


def _tell_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from egressproxy.planes.build import flow_path

        click.echo(f"egressproxy {version('egressproxy')} (flow path {flow_path()})")
        ctx.exit()


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_tell_version,
    help="Show the version, and whether the flow path is compiled.",
)
def cli() -> None:
    """Firewall-grade FQDN egress gateway for AKS."""


def main() -> None:
    """Run the command line; whatever goes wrong ends with 2, because 1 says deny.

    Errors of ours and of the system are told on one line, a defect with its traceback. A reader of
    stdout that has seen enough (``| head``) is no error of the command, and not told.
    """
    _open_missing_streams()
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else EXIT_ALLOW)
    except click.ClickException as error:
        error.show()
    except click.Abort:
        click.echo("Aborted!", err=True)
    except EgressproxyError as error:
        click.echo(f"egressproxy: {error}", err=True)
    except BrokenPipeError:
        forget_stdout()
    except OSError as error:
        click.echo(f"egressproxy: {error.filename or 'output'}: {error.strerror}", err=True)
        forget_stdout()
    except Exception:  # noqa: BLE001 - a defect must not end as a deny
        traceback.print_exc()
    sys.exit(EXIT_ERROR)


def _open_missing_streams() -> None:
    """Stand in for standard streams that were closed when we were started (``>&-``)."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - for good
            os.set_inheritable(stream.fileno(), True)  # else a worker's epoll gets the number
            setattr(sys, name, stream)


def forget_stdout() -> None:
    """Let what could not be written go nowhere, so that the interpreter's last flush succeeds."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

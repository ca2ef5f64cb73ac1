"""``egressproxy run``: serve a policy until a signal ends it."""

from __future__ import annotations

import asyncio
import os
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from egressproxy.planes.context import ListenerKind
from egressproxy.service.configuration import Problems, Sources, flag, read_config, read_settings
from egressproxy.service.options import (
    DEFAULT_MARK,
    DNS_PORT,
    Listener,
    LogOptions,
    RunOptions,
    parse_allows,
    parse_endpoint,
    parse_number,
    parse_overrides,
    parse_switch,
    parse_workers,
)
from egressproxy.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from egressproxy.admin.options import AdminOptions
    from egressproxy.service.options import Endpoint
    from egressproxy.service.supervisor import Supervisor

DEFAULT_ADMIN: Final = "127.0.0.1:9090"


@dataclass(frozen=True, slots=True)
class _Option:
    """One option of the command that is not a limit."""

    name: str
    metavar: str
    about: str
    multiple: bool = False


OPTIONS: Final = (
    _Option("policy", "FILE", "The policy to serve; its files are watched for changes."),
    _Option("explicit", "ADDR:PORT", "Listen as a proxy (CONNECT, absolute-form).", multiple=True),
    _Option("redirect", "ADDR:PORT", "Listen for nft redirect.", multiple=True),
    _Option("tproxy", "ADDR:PORT", "Listen for nft tproxy.", multiple=True),
    _Option("workers", "auto|N", "Worker processes; auto is one a CPU.  [default: auto]"),
    _Option(
        "admin",
        "ADDR:PORT|unix:PATH|none",
        f"Listen for health, metrics, policy and reload.  [default: {DEFAULT_ADMIN}]",
    ),
    _Option("admin_token_file", "FILE", "A bearer token for admin; needed off loopback."),
    _Option("log", "FILE|-", "Where flow records go.  [default: -, stdout]"),
    _Option("log_allows", "none|all|1/N", "Which allowed flows to record.  [default: all]"),
    _Option("resolve", "NAME=IP", "Answer this name with this address.", multiple=True),
    _Option("dns", "SERVER[:PORT]", "DNS server.  [default: those of resolv.conf]", multiple=True),
    _Option(
        "mark", "N", f"SO_MARK of our upstream sockets, 0 for none.  [default: {DEFAULT_MARK:#x}]"
    ),
    _Option("allow_outside", "", "Let policies include files outside their own folder."),
)
NAMES: Final = frozenset(
    {option.name for option in OPTIONS} | {limit.name for limit in fields(Settings)}
)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Every option of ``OPTIONS`` and one for each limit, all as the text that was given."""
    for limit in reversed(fields(Settings)):
        about = f"{limit.metadata['help']}  [default: {limit.default:g}]"
        decorate = click.option(flag(limit.name), metavar="N", multiple=True, help=about)
        command = decorate(command)
    for option in reversed(OPTIONS):
        if option.metavar:
            decorate = click.option(
                flag(option.name), metavar=option.metavar, multiple=True, help=option.about
            )
        else:
            decorate = click.option(flag(option.name), is_flag=True, help=option.about)
        command = decorate(command)
    return command


@click.command(name="run")
@click.option("--config", type=click.Path(path_type=Path), help="YAML file with these options.")
@_with_options
def command(config: Path | None, **given: Any) -> None:
    """Serve a policy until SIGTERM, which lets open flows end (a second one does not).

    SIGHUP reloads the policy, as does a change of its files; SIGUSR1 opens the record file anew.
    Every option is also an environment variable (--idle-timeout-s: EGRESSPROXY_IDLE_TIMEOUT_S) and
    a key of the config file; the command line wins over the variable, the variable over the file.
    """
    options, admin = read_options(config, given, os.environ)
    serve(options, admin)


def read_options(
    config: Path | None, given: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[RunOptions, AdminOptions | None]:
    """The whole order from all its sources.

    Raises:
        ServiceError: every problem at once.
    """
    from egressproxy.admin.options import admin_options  # aiohttp is not wanted for --help

    problems = Problems()
    flags = {name: _texts(value) for name, value in given.items() if value}
    nothing: dict[str, tuple[str, ...]] = {}
    file = problems.gather(lambda: read_config(config, NAMES), nothing) if config else nothing
    sources = Sources(flags, environment, file)
    token_file = sources.one("admin_token_file")
    admin = problems.gather(
        lambda: admin_options(
            sources.one("admin", DEFAULT_ADMIN), Path(token_file) if token_file else None
        ),
        None,
    )
    options = RunOptions(
        policy=Path(sources.one("policy")),
        listeners=_listeners(sources, problems),
        workers=problems.gather(
            lambda: parse_workers(sources.one("workers", "auto"), len(os.sched_getaffinity(0))), 1
        ),
        settings=read_settings(sources, problems),
        log=_log(sources, problems),
        servers=_endpoints(sources.many("dns"), problems, default_port=DNS_PORT),
        overrides=problems.gather(lambda: parse_overrides(sources.many("resolve")), {}),
        mark=_number(sources, problems, "mark", DEFAULT_MARK, low=0, high=0xFFFFFFFF),
        allow_outside=problems.gather(
            lambda: parse_switch(sources.one("allow_outside", "false")), False
        ),
    )
    if not sources.one("policy"):
        problems.found.append("a policy is wanted (hint: --policy policies/aks-global.yaml)")
    problems.raise_all()
    return options, admin


def serve(options: RunOptions, admin: AdminOptions | None) -> None:
    """Run the service.

    Raises:
        PolicyError: the policy is bad; every problem of it.
        ServiceError: a socket cannot be had, or the workers do not start.
    """
    from egressproxy.service.journal import configure_journal
    from egressproxy.service.supervisor import Supervisor

    def beside(supervisor: Supervisor) -> AbstractAsyncContextManager[object]:
        if admin is None:
            return nullcontext()
        from egressproxy.admin.server import serve_admin

        return serve_admin(supervisor, admin)

    async def run() -> None:
        await Supervisor(options).run(beside)

    configure_journal()
    asyncio.run(run())


def _listeners(sources: Sources, problems: Problems) -> tuple[Listener, ...]:
    found = [
        Listener(kind, endpoint)
        for kind in ListenerKind
        for endpoint in _endpoints(sources.many(kind.value), problems)
    ]
    if not found and not problems.found:
        problems.found.append(
            "there is nothing to listen on (hint: --explicit 127.0.0.1:3128 for a proxy)"
        )
    return tuple(found)


def _endpoints(
    texts: tuple[str, ...], problems: Problems, *, default_port: int | None = None
) -> tuple[Endpoint, ...]:
    read = partial(parse_endpoint, default_port=default_port)
    found = (problems.gather(partial(read, text), None) for text in texts)
    return tuple(endpoint for endpoint in found if endpoint is not None)


def _log(sources: Sources, problems: Problems) -> LogOptions:
    path = sources.one("log", "-")
    choice = problems.gather(lambda: parse_allows(sources.one("log_allows", "all")), None)
    default = LogOptions()
    allows, sample_every = choice or (default.allows, default.sample_every)
    return LogOptions(
        path=None if path == "-" else Path(path),
        allows=allows,
        sample_every=sample_every,
    )


def _number(
    sources: Sources, problems: Problems, name: str, default: int, *, low: int, high: int
) -> int:
    text = sources.one(name, str(default))
    return problems.gather(
        lambda: parse_number(text, sources.place(name), low=low, high=high), default
    )


def _texts(value: Any) -> tuple[str, ...]:
    return ("true",) if value is True else tuple(value)

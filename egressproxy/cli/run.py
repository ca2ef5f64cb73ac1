"""``egressproxy run``: serve a policy until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from egressproxy.admin.options import admin_options, read_token
from egressproxy.errors import ServiceError
from egressproxy.export.outlet import parse_target
from egressproxy.planes.context import AllowRecords, ListenerKind
from egressproxy.service.activation import is_activated
from egressproxy.service.configuration import Problems, Sources, flag, read_config, read_settings
from egressproxy.service.cpus import usable_cpus
from egressproxy.service.options import (
    DEFAULT_MARK,
    DNS_PORT,
    Listener,
    LogOptions,
    RunOptions,
    host_name,
    parse_allows,
    parse_endpoint,
    parse_gateway,
    parse_newly_denied,
    parse_number,
    parse_override,
    parse_overrides,
    parse_store,
    parse_switch,
    parse_workers,
)
from egressproxy.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from contextlib import AbstractAsyncContextManager

    from egressproxy.admin.options import AdminOptions
    from egressproxy.service.firewall_configuration import FirewallOrder
    from egressproxy.service.supervisor import Supervisor

_T = TypeVar("_T")

DEFAULT_ADMIN: Final = "127.0.0.1:9090"
MAX_MARK: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Option:
    """One option of the command that is not a limit."""

    name: str
    metavar: str
    about: str
    multiple: bool = False


OPTIONS: Final = (
    _Option("policy", "PATH", "The policy, or a folder with a policy.yaml; watched for changes."),
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
    _Option("admin_read_token_file", "FILE", "A token for admin that reads and changes nothing."),
    _Option("log", "FILE|-", "Where flow records go.  [default: -, stdout]"),
    _Option("log_allows", "none|all|1/N", "Which allowed flows to record.  [default: all]"),
    _Option(
        "review_store",
        "PATH|URL|none",
        "Where flows are kept for review: a file, or postgresql://….  [default: none]",
    ),
    _Option(
        "review_max_newly_denied",
        "N|none",
        "Refuse a reload that would deny more flows of the last day.  [default: none]",
    ),
    _Option(
        "export",
        "TARGET",
        "Flow records for others: azure:FOLDER, syslog:udp|tcp|tls://HOST[:PORT],"
        " syslog:unix:PATH, otlp:http(s)://HOST[:PORT].",
        multiple=True,
    ),
    _Option("gateway", "NAME", "This gateway's name for others.  [default: the host's]"),
    _Option("resolve", "NAME=IP", "Answer this name with this address.", multiple=True),
    _Option("dns", "SERVER[:PORT]", "DNS server.  [default: those of resolv.conf]", multiple=True),
    _Option(
        "mark", "N", f"SO_MARK of our upstream sockets, 0 for none.  [default: {DEFAULT_MARK:#x}]"
    ),
    _Option("allow_outside", "", "Let policies include files outside their own folder."),
)
_CONFIG_HELP: Final = (
    "YAML file with these options. Relative paths in it are from the working directory."
)
NAMES: Final = frozenset(
    {option.name for option in OPTIONS} | {limit.name for limit in fields(Settings)}
)


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """``--config``, every option of ``OPTIONS`` and one for each limit, as the text given."""
    for limit in reversed(fields(Settings)):
        about = f"{limit.metadata['help']}  [default: {limit.default}]"
        decorate = click.option(flag(limit.name), metavar="N", multiple=True, help=about)
        command = decorate(command)
    for option in reversed(OPTIONS):
        if option.metavar:
            about = option.about + (" May be repeated." if option.multiple else "")
            decorate = click.option(
                flag(option.name), metavar=option.metavar, multiple=True, help=about
            )
        else:
            decorate = click.option(flag(option.name), is_flag=True, help=option.about)
        command = decorate(command)
    config = click.Path(path_type=Path)
    return click.option("--config", type=config, help=_CONFIG_HELP)(command)


@click.command(name="run")
@with_options
def command(config: Path | None, **given: Any) -> None:
    """Serve a policy until SIGTERM, which lets open flows end (a second one does not).

    SIGHUP reloads the policy, as does a change of its files; SIGUSR1 opens the record file anew.
    Every option is also an environment variable (--idle-timeout-s: EGRESSPROXY_IDLE_TIMEOUT_S) and
    a key of the config file; the command line wins over the variable, the variable over the file.
    """
    problems = Problems()
    sources = read_sources(config, given, os.environ, NAMES, problems)
    options, admin = read_options(sources, problems)
    if not _has_listeners(sources):
        problems.found.append(
            "there is nothing to listen on (hint: --explicit 127.0.0.1:3128 for a proxy)"
        )
    problems.raise_all()
    serve(options, admin)


def read_sources(
    config: Path | None,
    given: Mapping[str, Any],
    environment: Mapping[str, str],
    known: Collection[str],
    problems: Problems,
) -> Sources:
    """Where options come from: the command line, the environment, the config file.

    Args:
        config: the file, if any; what is wrong with it is noted.
        given: what stood on the command line, by option.
        environment: that of the process.
        known: the keys that the file may have.
        problems: where problems are noted.

    Raises:
        ServiceError: the file cannot be read; nothing else is known then.
    """
    flags = {name: _texts(value) for name, value in given.items() if value}
    nothing: dict[str, tuple[str, ...]] = {}
    file = read_config(config, known, problems) if config else nothing
    return Sources(flags, environment, file)


def read_options(sources: Sources, problems: Problems) -> tuple[RunOptions, AdminOptions | None]:
    """The order; of what is wrong, which is noted, the default."""
    reader = _Reader(sources, problems)
    token, read_only = (
        reader.one(name, "", lambda text: read_token(Path(text)) if text else "", "")
        for name in ("admin_token_file", "admin_read_token_file")
    )
    admin = reader.one(
        "admin", DEFAULT_ADMIN, lambda text: admin_options(text, token, read_only), None
    )
    options = RunOptions(
        policy=Path(reader.text("policy")),
        listeners=_listeners(reader),
        workers=reader.one("workers", "auto", lambda text: parse_workers(text, usable_cpus()), 1),
        settings=read_settings(reader.sources, problems),
        log=_log(reader),
        servers=reader.each("dns", partial(parse_endpoint, default_port=DNS_PORT)),
        overrides=parse_overrides(reader.each("resolve", parse_override)),
        mark=reader.one("mark", str(DEFAULT_MARK), partial(parse_number, low=0, high=MAX_MARK), 0),
        allow_outside=reader.one("allow_outside", "false", parse_switch, False),
        gateway=reader.one("gateway", host_name(), parse_gateway, ""),
        review_store=reader.one("review_store", "none", parse_store, None),
        review_max_newly_denied=_newly_denied(reader),
        exports=tuple(dict.fromkeys(reader.each("export", parse_target))),
    )
    if not reader.text("policy"):
        problems.found.append(
            "a policy is wanted (hint: --policy FILE; egressproxy init writes one)"
        )
    return options, admin


def serve(
    options: RunOptions, admin: AdminOptions | None, firewall: FirewallOrder | None = None
) -> None:
    """Run the service; with the kernel's firewall where there is an order for it.

    Raises:
        PolicyError: the policy is bad; every problem of it.
        ServiceError: a socket cannot be had, or the workers do not start.
        KernelError: the kernel's firewall cannot be put up.
    """
    from egressproxy.service.journal import configure_journal
    from egressproxy.service.supervisor import Supervisor

    if options.log.path is None and sys.__stdout__ is None:
        raise ServiceError("flow records go to stdout, which is closed", hint="--log FILE")

    def beside(supervisor: Supervisor) -> AbstractAsyncContextManager[object]:
        if admin is None:
            return nullcontext()
        from egressproxy.admin.server import serve_admin

        return serve_admin(supervisor, admin)

    async def run() -> None:
        await Supervisor(options, firewall).run(beside)

    configure_journal()
    asyncio.run(run())


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads options from their sources and notes what is wrong with each."""

    sources: Sources
    problems: Problems

    def text(self, name: str, default: str = "") -> str:
        """The text of an option that is given once."""
        return self.sources.one(name, default)

    def one(self, name: str, default: str, parse: Callable[[str], _T], otherwise: _T) -> _T:
        """The value of an option that is given once."""
        text = self.text(name, default)
        place = self.sources.place(name)
        return self.problems.gather(lambda: parse(text), otherwise, place=place)

    def each(self, name: str, parse: Callable[[str], _T]) -> tuple[_T, ...]:
        """The values of an option that may be repeated."""
        found: list[_T | None] = [
            self.problems.gather(partial(parse, text), None, place=self.sources.place(name))
            for text in self.sources.many(name)
        ]
        return tuple(value for value in found if value is not None)


def _listeners(reader: _Reader) -> tuple[Listener, ...]:
    return tuple(
        Listener(kind, endpoint)
        for kind in ListenerKind
        for endpoint in reader.each(kind.value, parse_endpoint)
    )


def _has_listeners(sources: Sources) -> bool:
    """Whether some were asked for, good or bad, or the service manager gives them."""
    is_asked = any(sources.many(kind.value) for kind in ListenerKind)
    return is_asked or is_activated(sources.environment)


def _newly_denied(reader: _Reader) -> int | None:
    limit = reader.one("review_max_newly_denied", "none", parse_newly_denied, None)
    if limit is not None and not reader.text("review_store", "none").removesuffix("none"):
        reader.problems.found.append(
            "--review-max-newly-denied asks the review store, and there is none"
            " (hint: --review-store /var/lib/egressproxy/review.db)"
        )
    if limit is not None and reader.text("log_allows", "all") == "none":
        reader.problems.found.append(
            "--review-max-newly-denied replays allowed flows, and --log-allows none records none"
        )
    return limit


def _log(reader: _Reader) -> LogOptions:
    path = reader.text("log", "-")
    allows, sample_every = reader.one("log_allows", "all", parse_allows, (AllowRecords.ALL, 1))
    return LogOptions(
        path=None if path == "-" else Path(path), allows=allows, sample_every=sample_every
    )


def _texts(value: Any) -> tuple[str, ...]:
    return ("true",) if value is True else tuple(value)

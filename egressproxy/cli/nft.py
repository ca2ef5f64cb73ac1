"""``egressproxy nft show|check|apply|remove|status``: the kernel's table for a policy.

``up`` does all this by itself and more. These commands are for looking, for trying, and for a
gateway whose service is down.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from egressproxy.cli.down import state_option
from egressproxy.cli.main import EXIT_DENY
from egressproxy.errors import PolicyError
from egressproxy.kernel.host_state import owned
from egressproxy.kernel.nft_apply import Nft
from egressproxy.service.configuration import Problems, Sources, flag, read_config
from egressproxy.service.firewall_configuration import (
    FIREWALL_NAMES,
    FIREWALL_OPTIONS,
    ListenerPorts,
    endpoint_port,
    read_firewall,
    state_path,
)
from egressproxy.service.options import parse_endpoint, parse_switch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from egressproxy.kernel.firewall_options import FirewallOptions
    from egressproxy.kernel.kernel_policy import KernelPolicy
    from egressproxy.policy.rules import Policy
    from egressproxy.service.by_hand import Closed
    from egressproxy.service.options import Endpoint

_LISTENERS: Final = (
    ("redirect", "Where the proxy listens for nft redirect."),
    ("tproxy", "Where the proxy listens for nft tproxy."),
    ("explicit", "Where the proxy listens as a proxy; may be repeated."),
    ("admin", "Where the admin pages are."),
)
EXAMPLES: Final = """\b
egressproxy nft show --policy policy.yaml --redirect :15001 | less
egressproxy nft check --config /etc/egressproxy/config.yaml
egressproxy nft status --config /etc/egressproxy/config.yaml
watch egressproxy nft status --policy policy.yaml
"""


@dataclass(frozen=True, slots=True)
class _Order:
    """What was asked for: ``policy`` is ``None`` where none was named.

    ``are_whole`` is whether the options can be those of ``up``, which does without no management.
    """

    policy: Path | None
    allow_outside: bool
    options: FirewallOptions
    are_whole: bool
    state: Path


@click.group(epilog=EXAMPLES)
def command() -> None:
    """The kernel's table of a policy: look, try, apply, take away.

    Options are those of `up`: flags, EGRESSPROXY_ variables, or the same --config file.
    """


def with_firewall_options(function: Callable[..., None]) -> Callable[..., None]:
    """The kernel firewall's own options, all as the text that was given."""
    for option in reversed(FIREWALL_OPTIONS):
        about = option.about + ("  May be repeated." if option.multiple else "")
        decorate = click.option(
            flag(option.name), metavar=option.metavar, multiple=True, help=about
        )
        function = decorate(function)
    return function


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    """``--config``, ``--policy``, the listeners, and the firewall's own options."""
    function = with_firewall_options(function)
    for name, about in reversed(_LISTENERS):
        decorate = click.option(flag(name), metavar="ADDR:PORT", multiple=True, help=about)
        function = decorate(function)
    function = click.option(
        "--allow-outside", is_flag=True, help="Files outside the policy's folder may be named."
    )(function)
    function = click.option("--policy", metavar="PATH", multiple=True, help="The policy.")(function)
    config = click.Path(path_type=Path)
    return click.option("--config", type=config, help="YAML file with these options.")(function)


@command.command()
@_with_options
def show(config: Path | None, **given: Any) -> None:
    """Print the table's text, as `nft -f` reads it."""
    order = _order(config, given)
    click.echo(_script(order, _kernel_policy(order)), nl=False)


@command.command()
@_with_options
def check(config: Path | None, **given: Any) -> None:
    """Ask the kernel whether it would take the table; nothing changes."""
    order = _order(config, given)
    policy = _kernel_policy(order)
    script = _script(order, policy)
    Nft().check(script)
    click.echo(f"good: {_summary(policy)}, {len(script.encode()):,} bytes; nothing was changed")


@command.command()
@_with_options
def apply(config: Path | None, **given: Any) -> None:
    """Put the table in place, in one transaction.

    What counters and sets of names hold stays, without addresses that the policy denies; forwarded
    connections that it denies are ended, unless its on_reload keeps them. Nothing is forwarded
    unless sysctls say so, and nothing is proxied unless the proxy runs: `up` sees to all of that.
    """
    from egressproxy.kernel.kernel_policy import kernel_policy
    from egressproxy.kernel.nft_script import table_script
    from egressproxy.kernel.takeover import remember_table, takeover
    from egressproxy.service.by_hand import close_denied

    order = _order(config, given)
    policy = _policy(order)
    kernel = kernel_policy(policy, time.time())
    nft = Nft()
    with owned(order.state):
        nft.apply(table_script(kernel, order.options, nft.table_state(elements=True)))
        remember_table(nft.table_state(), order.state)
        click.echo(f"in place: {_summary(kernel)}")
        _print_closed(close_denied(policy, kernel, order.options.clients, nft))
    found = takeover(nft, order.state)
    if not found.routing.guard:
        click.echo("the routing guard is not: without the table all would be forwarded", err=True)
    if found.sysctls:
        click.echo(f"sysctls that are not as they have to be: {len(found.sysctls)}", err=True)


@command.command()
@state_option
def remove(state: Path) -> None:
    """Delete the table; the routing guard stays, so that nothing is forwarded.

    `egressproxy down` takes back everything.
    """
    with owned(state):
        is_gone = Nft().remove()
    click.echo("the table is deleted" if is_gone else "there was no table")


@command.command()
@_with_options
@click.option("--all", "all_", is_flag=True, help="Also counters that are zero and every set.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(config: Path | None, *, all_: bool, as_json: bool, **given: Any) -> None:
    """Show what is in place, with counters; exit 1 if it is not all as it has to be.

    With a policy its rules are named, and the table is held against it; with `management`, as `up`
    wants it (so mostly by --config), the table is held against all options too.
    """
    from egressproxy.cli.nft_page import print_status, status_as_json
    from egressproxy.doctor.machine import Machine
    from egressproxy.doctor.ports import open_ports
    from egressproxy.kernel.firewall_status import firewall_status
    from egressproxy.kernel.takeover import takeover

    order = _order(config, given)
    policy, refusal = _policy_or_refusal(order)
    found = firewall_status(
        takeover(Nft(), order.state),
        policy,
        order.options,
        are_whole=order.are_whole,
        listening=open_ports(Machine()),
    )
    found = replace(found, problems=(*refusal, *found.problems))
    if as_json:
        click.echo(json.dumps(status_as_json(found), indent=2))
    else:
        print_status(found, all_=all_)
    if found.problems:
        sys.exit(EXIT_DENY)


def _order(config: Path | None, given: Mapping[str, Any]) -> _Order:
    """The whole order from all its sources.

    Raises:
        ServiceError: every problem at once.
    """
    from egressproxy.cli.run import NAMES

    problems = Problems()
    nothing: dict[str, tuple[str, ...]] = {}
    known = NAMES | FIREWALL_NAMES
    file = read_config(config, known, problems) if config else nothing
    flags = {name: _texts(value) for name, value in given.items() if value}
    sources = Sources(flags, os.environ, file)
    options = read_firewall(sources, problems, _ports(sources, problems))
    policy = sources.one("policy")
    allow_outside = problems.gather(
        lambda: parse_switch(sources.one("allow_outside", "false")), False
    )
    problems.raise_all()
    return _Order(
        policy=Path(policy) if policy else None,
        allow_outside=allow_outside,
        options=options,
        are_whole=bool(sources.many("management")),
        state=state_path(sources),
    )


def _ports(sources: Sources, problems: Problems) -> ListenerPorts:
    redirect, tproxy = (_endpoints(name, sources, problems) for name in ("redirect", "tproxy"))
    explicit = _endpoints("explicit", sources, problems)
    return ListenerPorts(
        redirect=redirect[0].port if redirect else 0,
        tproxy=tproxy[0].port if tproxy else 0,
        explicit=tuple(port for each in explicit if (port := endpoint_port(each))),
        admin=_admin_port(sources, problems),
    )


def _endpoints(name: str, sources: Sources, problems: Problems) -> list[Endpoint]:
    found = [
        problems.gather(partial(parse_endpoint, text), None, place=sources.place(name))
        for text in sources.many(name)
    ]
    return [endpoint for endpoint in found if endpoint is not None]


def _admin_port(sources: Sources, problems: Problems) -> int:
    text = sources.one("admin")
    if not text or text == "none" or text.startswith("unix:"):
        return 0
    place = sources.place("admin")
    return endpoint_port(problems.gather(lambda: parse_endpoint(text), None, place=place))


def _print_closed(closed: Closed) -> None:
    done = closed.forwarded
    for count, what in (
        (closed.addresses, "addresses of names that it denies: taken out"),
        (done.revoked, "forwarded connections that it denies: ended"),
        (done.kept, "forwarded connections that it denies: kept, as its on_reload says"),
    ):
        if count:
            click.echo(f"{what}: {count:,}")


def _policy(order: _Order) -> Policy:
    from egressproxy.policy.load import load_policy

    if order.policy is None:
        raise click.UsageError("a policy is wanted: --policy FILE; egressproxy init writes one")
    return load_policy(order.policy, allow_outside=order.allow_outside)


def _kernel_policy(order: _Order) -> KernelPolicy:
    from egressproxy.kernel.kernel_policy import kernel_policy

    return kernel_policy(_policy(order), time.time())


def _policy_or_refusal(order: _Order) -> tuple[KernelPolicy | None, tuple[str, ...]]:
    """The policy; of a file with mistakes, which changes nothing in force, what to say of it."""
    if order.policy is None:
        return None, ()
    try:
        return _kernel_policy(order), ()
    except PolicyError as error:
        first, more = error.problems[0], len(error.problems) - 1
        rest = f", and {more} more" if more else ""
        told = f"the policy's file is bad, so the table is not held against it: {first}{rest}"
        return None, (f"{told}: egressproxy policy validate {order.policy}",)


def _script(order: _Order, policy: KernelPolicy) -> str:
    from egressproxy.kernel.nft_script import table_script

    return table_script(policy, order.options)


def _summary(policy: KernelPolicy) -> str:
    rules = f"{len(policy.rules):,} network rule{'' if len(policy.rules) == 1 else 's'}"
    ports = ", ".join(map(str, policy.application_ports)) or "none"
    return f"policy {policy.digest[:12]}, {rules}, application ports {ports}"


def _texts(value: Any) -> tuple[str, ...]:
    return ("true",) if value is True else tuple(value)

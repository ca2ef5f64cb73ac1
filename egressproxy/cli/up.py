"""``egressproxy up``: the kernel's firewall and the proxy behind it, as one service."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from egressproxy.cli import run
from egressproxy.cli.nft import with_firewall_options
from egressproxy.planes.context import ListenerKind
from egressproxy.service.activation import activated_kinds
from egressproxy.service.configuration import Problems
from egressproxy.service.firewall_configuration import (
    FIREWALL_NAMES,
    NOBODY,
    FirewallOrder,
    ListenerPorts,
    endpoint_port,
    read_firewall,
    state_path,
)
from egressproxy.service.options import Endpoint, Listener

if TYPE_CHECKING:
    from collections.abc import Mapping

    from egressproxy.admin.options import AdminOptions
    from egressproxy.kernel.firewall_options import FirewallOptions
    from egressproxy.service.configuration import Sources
    from egressproxy.service.options import RunOptions

_IPV6: Final = Path("/proc/net/if_inet6")
EXAMPLES: Final = """\b
egressproxy up --policy policy.yaml --management 10.0.0.64/26
egressproxy up --config /etc/egressproxy/config.yaml
egressproxy nft status --config /etc/egressproxy/config.yaml
egressproxy down
"""


@click.command(name="up", epilog=EXAMPLES)
@run.with_options
@with_firewall_options
def command(config: Path | None, **given: Any) -> None:
    """Be the firewall: enforce a policy in the kernel and in the proxy until SIGTERM.

    All that `run` does, with the kernel's part: one nftables table, the routing guard, sysctls,
    policy routes for TPROXY. Application ports come to the proxy at port 15001 where no listener is
    named. Ended, it leaves the table in place: nothing passes that the policy denies, application
    flows are refused. `egressproxy down` takes everything back.
    """
    options, admin, order = read_order(config, given, os.environ)
    if address := locked_out(order.options, os.environ):
        _warn_of_lock_out(address)
    run.serve(options, admin, order)


def read_order(
    config: Path | None, given: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[RunOptions, AdminOptions | None, FirewallOrder]:
    """The whole order from all its sources.

    Raises:
        ServiceError: every problem at once.
    """
    problems = Problems()
    sources = run.read_sources(config, given, environment, run.NAMES | FIREWALL_NAMES, problems)
    options, admin = run.read_options(sources, problems)
    firewall = read_firewall(sources, problems, _ports(options, admin))
    _want_management(sources, problems)
    problems.raise_all()
    options = replace(
        options, listeners=(*options.listeners, *_missing(options, firewall, environment))
    )
    return options, admin, FirewallOrder(firewall, state_path(sources))


def locked_out(options: FirewallOptions, environment: Mapping[str, str]) -> str:
    """The address of the SSH session that we were started in, where a new one would be dropped."""
    text = environment.get("SSH_CONNECTION", "").partition(" ")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return ""
    return "" if any(address in network for network in options.management) else text


def _warn_of_lock_out(address: str) -> None:
    """Say it, and go on: this session stays open, and can still undo it."""
    from egressproxy.service.journal import configure_journal, journal

    configure_journal()
    journal().warning(
        "this SSH session comes from an address that is not in management: the next is dropped",
        address=address,
        hint=f"--management {address}; until then `egressproxy down`, from this session",
    )


def _ports(options: RunOptions, admin: AdminOptions | None) -> ListenerPorts:
    def ports(kind: ListenerKind) -> list[int]:
        return [each.endpoint.port for each in options.listeners if each.kind is kind]

    explicit = (each for each in options.listeners if each.kind is ListenerKind.EXPLICIT)
    return ListenerPorts(
        redirect=next(iter(ports(ListenerKind.REDIRECT)), 0),
        tproxy=next(iter(ports(ListenerKind.TPROXY)), 0),
        explicit=tuple(port for each in explicit if (port := endpoint_port(each.endpoint))),
        admin=0 if admin is None else endpoint_port(admin.place),
    )


def _missing(
    options: RunOptions, firewall: FirewallOptions, environment: Mapping[str, str]
) -> tuple[Listener, ...]:
    """The listener for application flows, where none was named and no service manager gives it."""
    kind = ListenerKind(firewall.intercept)
    is_named = any(each.kind is kind for each in options.listeners)
    if is_named or not firewall.proxy_port or kind in activated_kinds(environment):
        return ()
    every = "::" if _IPV6.exists() else "0.0.0.0"  # noqa: S104 - its clients are the kernel's choice
    return (Listener(kind, Endpoint(every, firewall.proxy_port)),)


def _want_management(sources: Sources, problems: Problems) -> None:
    """Whoever is left out by accident has no way back in but the machine's console."""
    if not sources.many("management"):
        problems.found.append(
            "management is wanted: who may reach SSH and the admin pages"
            f" (hint: --management 10.0.0.64/26, or {NOBODY})"
        )

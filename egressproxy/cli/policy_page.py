"""A policy as people read it: a table on a terminal, tab-separated lines in a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from egressproxy.policy.rules import Policy, Rule

_HEADERS: Final = ("Rule", "Action", "To", "Ports", "From", "Origin")
_MAX_SHOWN: Final = 12


def print_policy(policy: Policy) -> None:
    """Print the rules in the order in which they are judged, the policy's settings first."""
    rows = [_row(rule) for rule in policy.rules]
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(", ".join(cell) for cell in row))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in _HEADERS:
        table.add_column(header, overflow="fold")  # a name that is cut short cannot be read
    for row in rows:
        table.add_row(*(escape("\n".join(cell)) for cell in row))
    console = Console(highlight=False)
    console.print(escape(_headline(policy)), style="bold")
    console.print(table)


def _headline(policy: Policy) -> str:
    end = policy.audit_until or policy.warn_until
    until = f" until {end}" if end else ""
    return f"{policy.cloud}, mode {policy.mode}{until}, digest {policy.digest[:12]}"


def _row(rule: Rule) -> tuple[list[str], ...]:
    action = [f"{rule.action}", *(["audit"] if rule.audit else [])]
    if rule.until:
        action.append(f"until {rule.until}")
    clients = ["everyone"]
    if rule.sources is not None:
        clients = [*(rule.source_groups or map(str, rule.sources))] or ["nobody"]
    return [rule.id], action, _destinations(rule), [*map(str, rule.ports)], clients, _origin(rule)


def _destinations(rule: Rule) -> list[str]:
    networks = [] if rule.tags else [str(network) for network in rule.networks]
    shown = [
        *map(str, rule.patterns),
        *(f"list:{names.path.name} (names: {len(names.entries):,})" for names in rule.lists),
        *(f"tag:{tag}" for tag in rule.tags),
        *networks,
        *(["any address"] if rule.any_destination else []),
    ]
    more = len(shown) - _MAX_SHOWN
    return [*shown[:_MAX_SHOWN], f"and {more} more"] if more > 0 else shown


def _origin(rule: Rule) -> list[str]:
    source = f"{rule.origin.document}: {rule.origin.section}" if rule.origin.document else ""
    return [str(rule.origin), *([source] if source else [])]

"""``nft status`` as people and programs read it: tables on a terminal, lines in a pipe, JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from egressproxy.cli.findings_page import printable
from egressproxy.kernel.firewall_status import SHOWN_DIGEST
from egressproxy.kernel.nft_apply import FAMILY, TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.kernel.firewall_status import Count, FirewallStatus, SetSize

_FIRST_COLUMN: Final = 42


def status_as_json(found: FirewallStatus) -> dict[str, Any]:
    """One object; counts are exact, ``changed_by_hand`` is null where that is not known."""
    table, routing = found.takeover.table, found.takeover.routing
    return {
        "problems": list(found.problems),
        "table": None if table is None else {"policy": table.digest, "chains": len(table.chains)},
        "policy": found.policy_digest or None,
        "audit": found.is_audit if found.policy_digest else None,
        "changed_by_hand": found.takeover.is_changed,
        "guard": routing.guard,
        "rules_before_the_guard": list(routing.ahead),
        "tproxy_routing": routing.tproxy,
        "sysctls": [
            {"name": each.name.replace("/", "."), "wanted": each.wanted, "now": each.now or None}
            for each in found.takeover.sysctls
        ],
        "outcomes": {each.of: _count_as_json(each) for each in found.outcomes},
        "rules": [{"rule": each.of, **_count_as_json(each)} for each in found.rules],
        "sets": [
            {"set": each.name, "name": each.of or None, "type": each.type, "size": each.elements}
            for each in found.sets
        ],
    }


def print_status(found: FirewallStatus, *, all_: bool) -> None:
    """Print it: for a terminal what is at rest stays out, unless ``all_``; for a pipe everything.

    A pipe gets a line a fact, tab-separated: its kind, whose it is, its values.
    """
    if not sys.stdout.isatty():
        for fields in _lines(found):
            click.echo("\t".join(printable(str(field)) for field in fields))
        return
    console = Console(highlight=False)
    for line in _head(found):
        console.print(line, soft_wrap=True)
    if found.takeover.table is not None:
        console.print()
        console.print(_counts(found, all_=all_))
        console.print()
        console.print(_sizes(found.sets, all_=all_))


def _lines(found: FirewallStatus) -> Iterator[tuple[object, ...]]:
    table, routing = found.takeover.table, found.takeover.routing
    yield "table", "none" if table is None else table.digest or "unknown"
    yield "guard", "yes" if routing.guard else "no"
    if routing.tproxy or found.wants_tproxy:
        yield "tproxy", "yes" if routing.tproxy else "no"
    if found.is_audit:
        yield "audit", "yes"
    yield from (("problem", problem) for problem in found.problems)
    yield from (("outcome", each.of, each.packets, each.bytes) for each in found.outcomes)
    yield from (("rule", each.of, each.packets, each.bytes) for each in found.rules)
    yield from (("set", each.of or each.name, each.type, each.elements) for each in found.sets)


def _head(found: FirewallStatus) -> Iterator[str]:
    table, routing = found.takeover.table, found.takeover.routing
    if table is None:
        yield f"[bold]table {FAMILY} {TABLE}[/]: [red]none[/]"
    else:
        same = ", as the policy's file" if table.digest == found.policy_digest else ""
        audit = " ([yellow]audit[/]: what it denies passes)" if found.is_audit else ""
        digest = escape(table.digest[:SHOWN_DIGEST]) or "unknown"
        sizes = f"{len(table.chains)} chains, {len(table.sets)} sets"
        yield f"[bold]table {FAMILY} {TABLE}[/]: policy {digest}{audit}{same}, {sizes}"
    parts = {
        "routing guard": "IPv4 and IPv6" if routing.guard else "[red]not in place[/]",
        "TPROXY routing": "IPv4 and IPv6" if routing.tproxy else "[red]not in place[/]",
        "sysctls": "as they have to be" if not found.takeover.sysctls else "[red]not all[/]",
    }
    if not (routing.tproxy or found.wants_tproxy):
        del parts["TPROXY routing"]
    yield ", ".join(f"{name}: {state}" for name, state in parts.items())
    yield from (f"[yellow]! {escape(printable(problem))}[/]" for problem in found.problems)


def _counts(found: FirewallStatus, *, all_: bool) -> Table:
    """What became of new connections, then the network rules; those at rest as a number."""
    table = _table("Counter", "Action", "Packets", "Bytes")
    for what, counts in (("outcomes", found.outcomes), ("network rules", found.rules)):
        shown = [each for each in counts if all_ or each.packets]
        for each in shown:
            name = escape(printable(each.of or each.name))
            table.add_row(name, each.action, f"{each.packets:,}", decimal(each.bytes))
        if rest := len(counts) - len(shown):
            table.add_row(f"[dim]{what} without a packet: {rest} (--all)[/]")
    return table


def _sizes(sets: tuple[SetSize, ...], *, all_: bool) -> Table:
    """Sets of names; of the many sets of ranges one line, unless ``all_``."""
    table = _table("Set", "Type", "Elements")
    shown = [each for each in sets if all_ or each.of]
    for each in shown:
        name = escape(printable(each.of or each.name))
        table.add_row(name, escape(printable(each.type)), f"{each.elements:,}")
    if rest := [each for each in sets if each not in shown]:
        total = sum(each.elements for each in rest)
        table.add_row(f"[dim]sets of ranges: {len(rest)} (--all)[/]", "", f"{total:,}")
    return table


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, header in enumerate(headers):
        justify: Any = "right" if header in ("Packets", "Bytes", "Elements") else "left"
        width = 0 if place else _FIRST_COLUMN
        table.add_column(header, justify=justify, overflow="fold", min_width=width)
    return table


def _count_as_json(each: Count) -> dict[str, Any]:
    return {
        "action": each.action or None,
        "packets": each.packets,
        "bytes": each.bytes,
        "counter": each.name,
    }

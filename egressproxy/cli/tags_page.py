"""Service tags as people and programs read them: tables and JSON objects.

Data goes to stdout, what is said about it to stderr: ``tags show Sql | wc -l`` counts ranges.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from egressproxy.policy.spans import AddressSet
    from egressproxy.policy.tag_diff import RuleChange, TagChange
    from egressproxy.policy.tags import ServiceTags, Tag

MAX_RANGES: Final = 4
"""Ranges of one rule that the table of changes names; the rest is counted."""
PIPE_WIDTH: Final = 140


def print_tags(found: Sequence[Tag], tags: ServiceTags, *, is_matched: bool) -> None:
    """Print a line a tag; ``is_matched`` is whether a person chose them."""
    regions = _regions(tags)
    rows = [("Tag", "Region" if is_matched else "Regions", "IPv4", "IPv6")]
    for tag in found:
        place = (tag.region or "all") if is_matched else str(regions[_service(tag)] or "-")
        rows.append((tag.name, place, *_counts(tag)))
    name_w, place_w, ipv4_w, ipv6_w = (max(map(len, column)) for column in zip(*rows, strict=True))
    align = "<" if is_matched else ">"
    for name, place, ipv4, ipv6 in rows:
        click.echo(f"{name:{name_w}}  {place:{align}{place_w}}  {ipv4:>{ipv4_w}}  {ipv6:>{ipv6_w}}")
    if not is_matched:
        click.echo(
            f"\n{len(found):,} of {len(tags.tags):,} tags. Others: --match japaneast for a region,"
            " --match 'Sql.*' for a service, --match 20.38.116.7 for an address.",
            err=True,
        )


def print_tag(name: str, found: Sequence[Tag], addresses: AddressSet, tags: ServiceTags) -> None:
    """Print the ranges; what they are, and of what, on stderr."""
    networks = addresses.networks()
    ipv4 = sum(network.version == 4 for network in networks)
    count = f"{_count(ipv4, 'IPv4 range')} ({_count(addresses.ipv4_addresses, 'address')})"
    what = f"{count}, {_count(len(networks) - ipv4, 'IPv6 range')}"
    click.echo(f"{_identity(name, found, tags)}: {what}", err=True)
    for network in networks:
        click.echo(str(network))


def print_tag_changes(changes: Sequence[TagChange], total: int) -> None:
    """Print a line a tag that differs."""
    rows = sorted((change.name, _change(change)) for change in changes)
    width = max((len(name) for name, _ in rows), default=0)
    for name, what in rows:
        click.echo(f"{name:{width}}  {what}")
    said = f"{len(rows):,} of {total:,} tags differ"
    hint = ". What that means for a policy: --policy policy.yaml" if rows else ""
    click.echo(f"{chr(10) if rows else ''}{said}{hint}", err=True)


def print_rule_changes(changes: Sequence[RuleChange], total: int) -> None:
    """Print a table with a rule a row, and their sum; ``total`` rules name tags."""
    if changes:
        _print_table(changes)
    added = sum(len(change.added.networks()) for change in changes)
    removed = sum(len(change.removed.networks()) for change in changes)
    said = f"{len(changes)} of {_count(total, 'rule')} with service tags"
    if changes:
        said += f" differ: {_count(added, 'range')} added, {removed:,} removed"
    elif total:
        said += " differ: for this policy nothing changes"
    else:
        said = "this policy names no service tag"
    click.echo(f"{chr(10) if changes else ''}{said}", err=True)


def tag_as_json(tag: Tag) -> dict[str, Any]:
    """A tag without its ranges, of which there are up to thousands."""
    ipv6 = sum(":" in prefix for prefix in tag.prefixes)
    return {
        "name": tag.name,
        "region": tag.region or None,
        "system_service": tag.service or None,
        "ipv4_ranges": len(tag.prefixes) - ipv6,
        "ipv6_ranges": ipv6,
    }


def change_as_json(change: TagChange) -> dict[str, Any]:
    """What becomes of a tag, every range of it."""
    return {
        "name": change.name,
        "is_new": change.is_new,
        "is_gone": change.is_gone,
        "added": _texts(change.added),
        "removed": _texts(change.removed),
    }


def rule_change_as_json(change: RuleChange) -> dict[str, Any]:
    """What becomes of a rule, every range of it."""
    return {
        "rule": change.rule.id,
        "action": str(change.rule.action),
        "tags": list(change.rule.tags),
        "ports": [str(span) for span in change.rule.ports],
        "added": _texts(change.added),
        "removed": _texts(change.removed),
    }


def is_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def _identity(name: str, found: Sequence[Tag], tags: ServiceTags) -> str:
    if len(found) > 1 or found[0].name.lower() != name.lower():
        only = f" is {found[0].name}" if len(found) == 1 else f" is {len(found)} tags"
        return f"{name}{only}"
    tag = found[0]
    if tag.region:
        return f"{tag.name}, region {tag.region}"
    regions = _regions(tags)[_service(tag)]
    return f"{tag.name}, all regions" + (f" ({tag.name}.REGION: {regions})" if regions else "")


def _regions(tags: ServiceTags) -> dict[str, int]:
    regions: dict[str, int] = {}
    for tag in tags.tags:
        regions[_service(tag)] = regions.get(_service(tag), 0) + bool(tag.region)
    return regions


def _service(tag: Tag) -> str:
    return tag.name.partition(".")[0].lower()


def _counts(tag: Tag) -> tuple[str, str]:
    ipv6 = sum(":" in prefix for prefix in tag.prefixes)
    return f"{len(tag.prefixes) - ipv6:,}", f"{ipv6:,}" if ipv6 else "-"


def _change(change: TagChange) -> str:
    added, removed = len(change.added.networks()), len(change.removed.networks())
    if change.is_new:
        return f"new, {_count(added, 'range')}"
    if change.is_gone:
        return f"gone, {_count(removed, 'range')}"
    return " ".join([*([f"+{added:,}"] if added else []), *([f"-{removed:,}"] if removed else [])])


def _print_table(changes: Iterable[RuleChange]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in ("Rule", "Tags", "Ports", "Added", "Removed"):
        table.add_column(header, overflow="fold", no_wrap=header in {"Added", "Removed"})
    for change in changes:
        rule = change.rule
        cells = (
            f"{rule.id}\n({rule.action})" if rule.action != "allow" else rule.id,
            "\n".join(rule.tags),
            "\n".join(map(str, rule.ports)),
            "\n".join(_shown("+", change.added)),
            "\n".join(_shown("-", change.removed)),
        )
        table.add_row(*map(escape, cells))
    width = None if is_terminal() else PIPE_WIDTH
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _shown(sign: str, addresses: AddressSet) -> list[str]:
    """The first ranges with their sign; the rest counted."""
    ranges = _texts(addresses)
    more = len(ranges) - MAX_RANGES
    shown = [f"{sign} {text}" for text in ranges[:MAX_RANGES]]
    return [*shown, f"{sign} {more:,} more"] if more > 0 else shown


def _texts(addresses: AddressSet) -> list[str]:
    return [str(network) for network in addresses.networks()]


def _count(number: int, what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{number:,} {what}" + ("" if number == 1 else plural)

"""``egressproxy tags list|show|diff``: Microsoft's service tags, and what a new file changes."""

from __future__ import annotations

import json
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from egressproxy.cli.main import EXIT_DENY
from egressproxy.cli.tags_page import (
    change_as_json,
    print_rule_changes,
    print_tag,
    print_tag_changes,
    print_tags,
    rule_change_as_json,
    tag_as_json,
)
from egressproxy.errors import EgressproxyError, PolicyError
from egressproxy.policy.files import read_regular
from egressproxy.policy.load import find_tag_file, load_policy
from egressproxy.policy.networks import looks_like_address, parse_network
from egressproxy.policy.problems import Problems
from egressproxy.policy.spans import AddressSet
from egressproxy.policy.tag_diff import diff_ranges, diff_tags
from egressproxy.policy.tag_edition import TagEdition, edition
from egressproxy.policy.tags import MAX_TAG_BYTES, ServiceTags, Tag, parse_tags

if TYPE_CHECKING:
    from egressproxy.policy.rules import Policy

LIST_EXAMPLES: Final = """\b
egressproxy tags list ServiceTags_Public_20251020.json
egressproxy tags list --match japaneast --policy policy.yaml
egressproxy tags list --match 'Sql.*' --policy policy.yaml
egressproxy tags list --match 20.38.116.7 --policy policy.yaml
"""
SHOW_EXAMPLES: Final = """\b
egressproxy tags show Sql.JapanEast ServiceTags_Public_20251020.json
egressproxy tags show 'Storage.*' --policy policy.yaml --json
"""
DIFF_EXAMPLES: Final = """\b
egressproxy tags diff ServiceTags_Public_20251013.json ServiceTags_Public_20251020.json \\
  --policy policy.yaml
"""

_FILE = click.Path(path_type=Path)
_policy = click.option(
    "--policy",
    "policy_file",
    envvar="EGRESSPROXY_POLICY",
    type=_FILE,
    help="Without FILE: the file that this policy names.",
)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


class _Read(NamedTuple):
    tags: ServiceTags
    edition: TagEdition


@click.group()
def command() -> None:
    """Show Microsoft's service tags, and what a new week's file changes."""


@command.command("list", epilog=LIST_EXAMPLES)
@click.argument("file", type=_FILE, required=False)
@click.option(
    "--match",
    metavar="TEXT",
    help="Only tags with TEXT in their name, of a pattern with '*', or with an address.",
)
@_policy
@_json
def list_(file: Path | None, match: str | None, policy_file: Path | None, *, as_json: bool) -> None:
    """List the tags of FILE; without --match those that are of no one region.

    Ends with 1 where none matches.
    """
    read = _read_named(file, policy_file)
    found = _matching(read.tags, match) if match is not None else _of_no_region(read.tags)
    if as_json:
        content = read.edition.facts() | {"tags": [tag_as_json(tag) for tag in found]}
        click.echo(json.dumps(content, indent=2))
    elif found:
        print_tags(found, read.tags, is_matched=match is not None)
    if not found:
        click.echo(f"no tag of {read.edition.path.name} matches {match!r}", err=True)
        sys.exit(EXIT_DENY)
    _warn_if_stale(read.edition)


@command.command(epilog=SHOW_EXAMPLES)
@click.argument("tag")
@click.argument("file", type=_FILE, required=False)
@_policy
@_json
def show(tag: str, file: Path | None, policy_file: Path | None, *, as_json: bool) -> None:
    """Print the ranges of TAG, one a line, as a rule that names it has them.

    TAG is Sql, Sql.JapanEast, or Sql.* for all regions of Sql. What else there is to say of it goes
    to stderr.
    """
    if tag.lower().endswith(".json"):
        raise click.UsageError(f"first the tag, then the file: tags show Sql {tag}")
    name = tag.removeprefix("tag:")
    read = _read_named(file, policy_file)
    found, addresses = read.tags.find(name), read.tags.addresses(name)
    if as_json:
        content = read.edition.facts() | {
            "name": name,
            "tags": [tag_as_json(one) for one in found],
            "ipv4_addresses": addresses.ipv4_addresses,
            "ranges": [str(network) for network in addresses.networks()],
        }
        click.echo(json.dumps(content, indent=2))
    else:
        print_tag(name, found, addresses, read.tags)
    _warn_if_stale(read.edition)


@command.command(epilog=DIFF_EXAMPLES)
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(exists=True, path_type=Path),
    help="For the rules of this policy.",
)
@click.option(
    "--allow-outside", is_flag=True, help="Files outside the policy's folder may be named."
)
@_json
def diff(
    old: Path, new: Path, policy_file: Path | None, *, allow_outside: bool, as_json: bool
) -> None:
    """Print what NEW changes: in the tags, or with --policy for its rules.

    Compared are addresses: ranges that are only cut otherwise are no change. Ends with 1 if there
    is one, with 2 if the policy would be refused.
    """
    before, after = _read(old), _read(new)
    content: dict[str, Any] = {
        "old": before.edition.facts(),
        "new": after.edition.facts(),
    }
    if not as_json:
        click.echo(f"{before.edition}\n{after.edition}\n", err=True)
        _warn_if_swapped(before, after)
    if policy_file is None:
        changes = diff_tags(before.tags, after.tags)
        content["tags"] = [change_as_json(change) for change in changes]
        if not as_json:
            print_tag_changes(changes, len(after.tags.tags))
        is_changed = bool(changes)
    else:
        was = _load(policy_file, old, allow_outside=allow_outside)
        policy = _load(policy_file, new, allow_outside=allow_outside)
        rules = diff_ranges(was, policy)
        content["rules"] = [rule_change_as_json(change) for change in rules]
        if not as_json:
            print_rule_changes(rules, sum(bool(rule.tags) for rule in policy.rules))
        is_changed = bool(rules)
    if as_json:
        click.echo(json.dumps(content, indent=2))
    if is_changed:
        sys.exit(EXIT_DENY)


def _read_named(file: Path | None, policy_file: Path | None) -> _Read:
    """The file that was given, or that the policy names."""
    if file is None and policy_file is not None:
        file = find_tag_file(policy_file, allow_outside=True)
        if file is None:
            raise EgressproxyError(
                f"{policy_file} names no service tag file",
                hint="add service_tags: FILE, or give it",
            )
    if file is None:
        raise click.UsageError(
            "give FILE, Microsoft's ServiceTags_*.json, or --policy with a policy that names one"
        )
    return _read(file)


def _read(file: Path) -> _Read:
    if file.suffix.lower() in (".yaml", ".yml"):
        raise click.UsageError(f"{file} is a policy: write --policy {file}")
    try:
        data = read_regular(file, MAX_TAG_BYTES)
    except OSError as error:
        raise EgressproxyError(f"{file} cannot be read: {error.strerror or error}") from error
    problems = Problems()
    tags = parse_tags(data, None, problems.of(file))
    if tags is None:
        raise problems.error()
    return _Read(tags, edition(file, tags.cloud, tags.change_number, now=time.time()))


def _load(policy_file: Path, tags: Path, *, allow_outside: bool) -> Policy:
    try:
        return load_policy(policy_file, allow_outside=allow_outside, service_tags=tags)
    except PolicyError as error:
        click.echo(f"with {tags.name} this policy is refused:", err=True)
        raise error from None


def _of_no_region(tags: ServiceTags) -> list[Tag]:
    return sorted((tag for tag in tags.tags if not tag.region), key=_by_name)


def _matching(tags: ServiceTags, text: str) -> list[Tag]:
    """By name, pattern or address, in order of their names."""
    wanted = text.lower().removeprefix("tag:")
    if looks_like_address(wanted):
        inside = AddressSet.of_networks([parse_network(wanted)])
        found = [tag for tag in tags.tags if tag.addresses() & inside]
    elif "*" in wanted:
        found = [tag for tag in tags.tags if _is_like(tag.name.lower(), wanted)]
    else:
        found = [tag for tag in tags.tags if wanted in tag.name.lower()]
    return sorted(found, key=_by_name)


def _is_like(name: str, pattern: str) -> bool:
    """Whether the whole name or one part of it has a pattern: ``japan*`` is meant of regions."""
    return any(fnmatchcase(text, pattern) for text in (name, *name.split(".")))


def _by_name(tag: Tag) -> str:
    return tag.name.lower()


def _warn_if_stale(found: TagEdition) -> None:
    now = time.time()
    if found.is_stale(now):
        age = f"is {found.age_days(now):,} days old, and there is a new one every week"
        click.echo(f"warning: {found.path.name} {age}", err=True)


def _warn_if_swapped(before: _Read, after: _Read) -> None:
    if before.tags.cloud != after.tags.cloud:
        click.echo("warning: the files are of two clouds", err=True)
    elif before.tags.change_number > after.tags.change_number:
        click.echo("warning: OLD is the younger one, are they swapped?", err=True)

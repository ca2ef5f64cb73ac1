"""``egressproxy policy validate|lint|show|diff|schema``: a policy file, checked and read back."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from egressproxy.cli.main import EXIT_DENY, EXIT_ERROR
from egressproxy.errors import PolicyError
from egressproxy.policy.load import load_policy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from egressproxy.policy.rules import Policy, Rule

_FILE = click.Path(path_type=Path)
_allow_outside = click.option(
    "--allow-outside", is_flag=True, help="Files outside the policy's folder may be named."
)


@click.group()
def command() -> None:
    """Check, show and compare policy files."""


@command.command()
@click.argument("file", type=_FILE)
@click.option("--strict", is_flag=True, help="Exit 1 if the lint has a warning.")
@_allow_outside
def validate(file: Path, *, strict: bool, allow_outside: bool) -> None:
    """Print every problem of a policy; exit 2 if there is one.

    Findings of the lint are printed too, but for those that the policy accepts; they are what a
    good policy may not mean.
    """
    from egressproxy.cli.lint_page import finding_line
    from egressproxy.policy.lint import lint

    policy = _load(file, allow_outside=allow_outside)
    findings = lint(policy)
    for finding in findings:
        if not finding.accepted:
            click.echo(finding_line(finding, file), err=True)
    names = sum(len(names.entries) for rule in policy.rules for names in rule.lists)
    listed = f", {_count(names, 'listed name')}" if names else ""
    warnings = sum(finding.fails for finding in findings)
    if strict and warnings:
        click.echo(f"{file}: valid, but {_count(warnings, 'warning')}", err=True)
        sys.exit(EXIT_DENY)
    click.echo(
        f"{file}: good: {_count(len(policy.rules), 'rule')}{listed},"
        f" mode {policy.mode}, digest {policy.digest[:12]}"
    )


@command.command("lint")
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--accepted", is_flag=True, help="Print what the policy accepts too.")
@_allow_outside
def lint_command(file: Path, *, as_json: bool, accepted: bool, allow_outside: bool) -> None:
    """Print what a valid policy may not mean; exit 1 if there is a warning.

    Rules that never decide, names that are never asked, wildcards that are everybody's, what opens
    by address, what is over. A rule, a requirement or the whole policy can accept a finding. Exit 2
    if the policy is not valid.
    """
    from egressproxy.cli.lint_page import as_object, finding_line, summary
    from egressproxy.policy.lint import lint

    findings = lint(_load(file, allow_outside=allow_outside))
    if as_json:
        click.echo(json.dumps(as_object(file, findings), indent=2, ensure_ascii=False))
    else:
        for finding in findings:
            if accepted or not finding.accepted:
                click.echo(finding_line(finding, file))
        click.echo(f"{file}: {summary(findings)}", err=True)
    if any(finding.fails for finding in findings):
        sys.exit(EXIT_DENY)


@command.command()
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@_allow_outside
def show(file: Path, *, as_json: bool, allow_outside: bool) -> None:
    """Print the expanded rules in the order in which they are judged."""
    policy = _load(file, allow_outside=allow_outside)
    if as_json:
        click.echo(json.dumps(_as_json(policy), indent=2, ensure_ascii=False))
        return
    from egressproxy.cli.policy_page import print_policy

    print_policy(policy)


@command.command()
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@_allow_outside
def diff(old: Path, new: Path, *, allow_outside: bool) -> None:
    """Print what changes from OLD to NEW in words; exit 1 if anything does."""
    from egressproxy.policy.diff import diff_rules
    from egressproxy.policy.verdict_diff import diff_verdicts

    before = _load(old, allow_outside=allow_outside)
    after = _load(new, allow_outside=allow_outside)
    judged = diff_verdicts(before, after, time.time())
    changes = [*diff_rules(before, after), *judged.changes]
    for change in changes:
        click.echo(str(change))
    if judged.unasked:
        click.echo(f"{_count(judged.unasked, 'destination')} not compared: too many", err=True)
    if changes:
        sys.exit(EXIT_DENY)
    click.echo("the policies judge alike", err=True)


@command.command()
@click.option("--included", is_flag=True, help="Of files that are included, not of root files.")
def schema(*, included: bool) -> None:
    """Print the JSON Schema of policy files, for editors."""
    from egressproxy.policy.schema import policy_schema

    click.echo(json.dumps(policy_schema(included=included), indent=2))


def _load(file: Path, *, allow_outside: bool) -> Policy:
    """The policy, or the end of the command with every problem on stderr."""
    try:
        return load_policy(file, allow_outside=allow_outside)
    except PolicyError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        click.echo(f"{file}: {_count(len(error.problems), 'problem')}", err=True)
        sys.exit(EXIT_ERROR)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _as_json(policy: Policy) -> dict[str, Any]:
    return {
        "cloud": policy.cloud,
        "mode": policy.mode,
        "audit_until": _text(policy.audit_until),
        "warn_until": _text(policy.warn_until),
        "warn_window": policy.warn_window if policy.warn_until else None,
        "destination": policy.destination,
        "ech": policy.ech,
        "refusal": policy.refusal,
        "on_reload": policy.on_reload,
        "digest": policy.digest,
        "sources": {name: _texts(networks) for name, networks in policy.sources},
        "requirements": list(policy.requirements),
        "files": _texts(policy.files),
        "rules": [_rule_as_json(rule) for rule in policy.rules],
    }


def _rule_as_json(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "action": rule.action,
        "names": _texts(rule.patterns),
        "lists": [{"file": str(n.path), "entries": len(n.entries)} for n in rule.lists],
        "tags": list(rule.tags),
        "networks": _texts(rule.networks),
        "any_destination": rule.any_destination,
        "ports": _texts(rule.ports),
        "from": None if rule.sources is None else _texts(rule.sources),
        "source_groups": list(rule.source_groups),
        "until": _text(rule.until),
        "audit": rule.audit,
        "audit_until": _text(rule.audit_until),
        "destination": rule.destination,
        "sni": rule.sni,
        "ech": rule.ech,
        "addresses": _texts(rule.addresses),
        "requirement": rule.requirement,
        "origin": {
            "file": rule.origin.file,
            "line": rule.origin.line,
            "document": rule.origin.document,
            "section": rule.origin.section,
        },
    }


def _texts(values: Iterable[object]) -> list[str]:
    return [str(value) for value in values]


def _text(value: object) -> str | None:
    return None if value is None else str(value)

"""``egressproxy probe``: does every name of the policy work from this very machine."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from egressproxy.cli.findings_page import findings_page
from egressproxy.cli.main import EXIT_ALLOW, EXIT_DENY
from egressproxy.cli.target import TargetError, policy_option
from egressproxy.doctor.finding import Level
from egressproxy.errors import ServiceError
from egressproxy.kernel.addresses import own_addresses
from egressproxy.kernel.sockets import can_mark
from egressproxy.names import DnsName
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.policy.openings import openings
from egressproxy.probe.attempt import Attempt, Means, trusting
from egressproxy.probe.judgement import judged
from egressproxy.probe.probing import probe
from egressproxy.resolve.guard import Guard
from egressproxy.resolve.resolver import Resolver
from egressproxy.service.options import (
    DEFAULT_MARK,
    DNS_PORT,
    parse_endpoint,
    parse_override,
    parse_overrides,
)
from egressproxy.settings import Settings

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from egressproxy.doctor.finding import Finding
    from egressproxy.policy.openings import Opening

MAX_JOBS: Final = 256
MAX_DEADLINE_S: Final = 3600
EXAMPLES: Final = """\b
egressproxy probe --policy /etc/egressproxy/policy.yaml
egressproxy probe --policy policy.yaml mcr.microsoft.com myregistry.azurecr.io
egressproxy probe --policy policy.yaml --dns 10.0.0.10 --ca-file cluster-ca.pem --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@policy_option
@click.option("--dns", multiple=True, metavar="SERVER[:PORT]", help="DNS server. May be repeated.")
@click.option("--resolve", multiple=True, metavar="NAME=IP", help="As of `run`. May be repeated.")
@click.option("--ca-file", metavar="FILE", help="PEM file of CAs to trust beside the system's.")
@click.option(
    "--jobs", type=click.IntRange(1, MAX_JOBS), default=16, show_default=True, help="Names at once."
)
@click.option(
    "--deadline-s",
    type=click.FloatRange(0.1, MAX_DEADLINE_S),
    default=60.0,
    show_default=True,
    help="For all names together.",
)
@click.option("--json", "is_json", is_flag=True, help="One JSON object.")
def command(
    names: tuple[str, ...],
    policy_file: Path,
    dns: tuple[str, ...],
    resolve: tuple[str, ...],
    ca_file: str | None,
    jobs: int,
    deadline_s: float,
    *,
    is_json: bool,
) -> None:
    """Try every name that the policy opens (or NAMEs of it) from this machine.

    Each has to resolve, to an address that may be dialled, to connect, and to complete TLS with a
    verified certificate, or to answer plain HTTP. Of udp rules the name is resolved, of tcp rules a
    connection is made. Below a wildcard a made-up name stands for it, marked as sample. Names in
    list: files are not tried. Ends with 0, with 1 where a name fails, with 2 where the question
    cannot be read.
    """
    opened = _opened(policy_file, names)
    trust = _trust(ca_file)
    resolving = {
        "servers": [str(parse_endpoint(text, default_port=DNS_PORT)) for text in dns],
        "overrides": parse_overrides(parse_override(item) for item in resolve),
    }
    attempts = asyncio.run(_run(opened, resolving, trust, jobs=jobs, deadline_s=deadline_s))
    now = time.time()
    findings = [judged(attempt, now) for attempt in attempts]
    if is_json:
        click.echo(json.dumps(_as_json(attempts, findings), indent=2, ensure_ascii=False))
    else:
        colour = False if os.environ.get("NO_COLOR") else None
        for line in findings_page(findings, "names"):
            click.echo(line, color=colour)
    is_bad = any(finding.level is Level.FAIL for finding in findings)
    sys.exit(EXIT_DENY if is_bad else EXIT_ALLOW)


async def _run(
    opened: Sequence[Opening],
    resolving: Mapping[str, Any],
    trust: ssl.SSLContext,
    *,
    jobs: int,
    deadline_s: float,
) -> tuple[Attempt, ...]:
    settings = Settings()
    means = Means(
        resolver=Resolver(settings, **resolving),
        guard=Guard(own_addresses()),
        trust=trust,
        settings=settings,
        mark=DEFAULT_MARK if can_mark() else 0,
    )
    try:
        return await probe(opened, means, at_once=jobs, deadline_s=deadline_s)
    finally:
        await means.resolver.aclose()


def _opened(policy_file: Path, names: Sequence[str]) -> tuple[Opening, ...]:
    policy = load_policy(policy_file)
    opened = openings(policy, compile_policy(policy), time.time())
    if not names:
        return opened
    wanted = [DnsName(name) for name in names]
    lacking = set(wanted) - {opening.name for opening in opened}
    if lacking:
        first = min(lacking)
        raise TargetError(
            f"{first} is no name that the policy opens",
            hint=f"egressproxy check {first} --policy {policy_file}",
        )
    return tuple(opening for opening in opened if opening.name in wanted)


def _trust(ca_file: str | None) -> ssl.SSLContext:
    try:
        return trusting(ca_file)
    except OSError as error:
        raise ServiceError(
            f"{ca_file} gives no CA to trust: {error.strerror or error}", hint="a PEM file"
        ) from error


def _as_json(attempts: Sequence[Attempt], findings: Sequence[Finding]) -> dict[str, Any]:
    counts = {str(level): sum(each.level is level for each in findings) for level in Level}
    return {**counts, "names": list(map(_name_as_json, attempts, findings))}


def _name_as_json(attempt: Attempt, finding: Finding) -> dict[str, Any]:
    opening = attempt.opening
    facts = {each.name: getattr(attempt, each.name) for each in fields(attempt)}
    del facts["opening"]
    return {
        "name": opening.name,
        "protocol": str(opening.protocol),
        "port": opening.port,
        "is_sample": opening.is_sample,
        "rule": opening.rule.id,
        "requirement": opening.rule.requirement,
        "origin": str(opening.rule.origin),
        "level": str(finding.level),
        **facts,
        "step": str(attempt.step),
        "seconds": round(attempt.seconds, 4),
        "why": finding.why,
        "fix": finding.fix,
    }

"""``egressproxy doctor``: is this machine fit to be the gateway, and what to do where it is not."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from egressproxy.cli.findings_page import findings_page
from egressproxy.cli.main import EXIT_ALLOW, EXIT_DENY
from egressproxy.doctor.examine import examine_machine, examine_names
from egressproxy.doctor.finding import Level, fail, ok
from egressproxy.doctor.machine import Machine
from egressproxy.doctor.plan import Plan
from egressproxy.errors import PolicyError, ServiceError
from egressproxy.policy.load import load_policy
from egressproxy.service.configuration import Problems
from egressproxy.service.firewall_configuration import FIREWALL_NAMES
from egressproxy.service.options import (
    DNS_PORT,
    Endpoint,
    parse_endpoint,
    parse_override,
    parse_overrides,
)

if TYPE_CHECKING:
    from egressproxy.doctor.finding import Finding

EXAMPLES = """\b
egressproxy doctor --config /etc/egressproxy/config.yaml
egressproxy doctor --policy policy.yaml --dns 10.0.0.10 --strict
egressproxy doctor --proxy-only --offline --json
"""


@click.command(epilog=EXAMPLES)
@click.option("--config", type=click.Path(path_type=Path), help="The service's config file.")
@click.option(
    "--policy", type=click.Path(path_type=Path), help="A policy, where there is no config."
)
@click.option("--dns", multiple=True, metavar="SERVER[:PORT]", help="DNS server. May be repeated.")
@click.option("--resolve", multiple=True, metavar="NAME=IP", help="As of `run`. May be repeated.")
@click.option(
    "--proxy-only", is_flag=True, help="An explicit proxy: no kernel rules, no forwarding."
)
@click.option("--offline", is_flag=True, help="Ask no DNS server.")
@click.option("--strict", is_flag=True, help="Warnings count as failures.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object.")
def command(
    config: Path | None,
    policy: Path | None,
    dns: tuple[str, ...],
    resolve: tuple[str, ...],
    *,
    proxy_only: bool,
    offline: bool,
    strict: bool,
    is_json: bool,
) -> None:
    """Check this machine: kernel, privileges, ports, DNS, clock, limits, private DNS zones.

    Changes nothing and sends nothing but DNS questions. Each check says ok, warn or fail, what was
    seen, why it matters, and the command that mends it. Ends with 0, with 1 where a check fails,
    with 2 where the question cannot be read.
    """
    options = {"policy": (str(policy),) if policy else (), "dns": dns, "resolve": resolve}
    plan, findings = _read(config, options, proxy_only=proxy_only)
    plan = replace(plan, is_firewall=not proxy_only)
    machine = Machine()
    findings += examine_machine(machine, plan)
    if not offline:
        findings += asyncio.run(examine_names(machine, plan))
    if is_json:
        click.echo(json.dumps(_as_json(findings), indent=2, ensure_ascii=False))
    else:
        colour = False if os.environ.get("NO_COLOR") else None
        for line in findings_page(findings, "checks"):
            click.echo(line, color=colour)
    bad = {Level.FAIL, Level.WARN} if strict else {Level.FAIL}
    sys.exit(EXIT_DENY if any(each.level in bad for each in findings) else EXIT_ALLOW)


def _read(
    config: Path | None, options: dict[str, tuple[str, ...]], *, proxy_only: bool
) -> tuple[Plan, list[Finding]]:
    """The plan; a configuration or policy that is wrong is a finding, and the rest is checked."""
    if config is None:
        overrides = parse_overrides(parse_override(item) for item in options["resolve"])
        servers = tuple(parse_endpoint(text, default_port=DNS_PORT) for text in options["dns"])
        plan = Plan(servers=servers, overrides=overrides)
        return _with_policy(plan, Path(*options["policy"]) if options["policy"] else None)
    try:
        plan, policy = _configured(config, options, proxy_only=proxy_only)
    except ServiceError as error:
        why = "the service does not start with it"
        seen = "; ".join(line.strip() for line in str(error).splitlines()).replace(":;", ":")
        return Plan(), [fail("configuration", seen, why, f"$EDITOR {config}")]
    plan, findings = _with_policy(plan, policy)
    return plan, [ok("configuration", str(config)), *findings]


def _configured(
    config: Path, options: dict[str, tuple[str, ...]], *, proxy_only: bool
) -> tuple[Plan, Path]:
    from egressproxy.cli import run, up  # with all that the service needs

    if proxy_only:
        problems = Problems()
        known = run.NAMES | FIREWALL_NAMES
        sources = run.read_sources(config, options, os.environ, known, problems)
        order, admin = run.read_options(sources, problems)
        problems.raise_all()
        firewall = None
    else:
        order, admin, whole = up.read_order(config, options, os.environ)
        firewall = whole.options
    place = admin.place if admin else None
    plan = Plan(
        settings=order.settings,
        listeners=order.listeners,
        admin=place if isinstance(place, Endpoint) else None,
        servers=order.servers,
        overrides=order.overrides,
        mark=order.mark,
        firewall=firewall,
        review_store=order.review_store,
    )
    return plan, order.policy


def _with_policy(plan: Plan, path: Path | None) -> tuple[Plan, list[Finding]]:
    if path is None:
        return plan, []
    try:
        policy = load_policy(path)
    except PolicyError as error:
        first, count = error.problems[0], len(error.problems)
        seen = f"{first}" + (f", and {count - 1} more" if count > 1 else "")
        why = "the service does not start with it; one that runs keeps the policy before"
        return plan, [fail("policy", seen, why, f"egressproxy policy validate {path}")]
    seen = f"{policy.mode}, {len(policy.rules)} rules, {policy.digest[:12]}"
    return replace(plan, policy=policy), [ok("policy", seen)]


def _as_json(findings: list[Finding]) -> dict[str, object]:
    counts = {str(level): sum(each.level is level for each in findings) for level in Level}
    return {**counts, "findings": [asdict(each) for each in findings]}

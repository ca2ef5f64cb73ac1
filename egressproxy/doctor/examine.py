"""All checks of this machine, in the order in which a person would mend what they find."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from egressproxy.doctor.access import check_access
from egressproxy.doctor.clock import check_clock, read_clock
from egressproxy.doctor.forwarding import check_forwarding
from egressproxy.doctor.links import check_ipv6, check_mtu
from egressproxy.doctor.ports import check_ports
from egressproxy.doctor.privileges import check_files, check_privileges
from egressproxy.doctor.review_store import check_review_store
from egressproxy.doctor.rules import check_rules, read_rules
from egressproxy.doctor.tracking import check_conntrack, check_source_ports
from egressproxy.doctor.zones import (
    ASKED,
    ask_servers,
    check_servers,
    check_zones,
    resolve_openings,
    servers_of,
)
from egressproxy.kernel.addresses import own_addresses
from egressproxy.kernel.nft_apply import Nft
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.openings import openings
from egressproxy.resolve.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.doctor.finding import Finding
    from egressproxy.doctor.machine import Machine
    from egressproxy.doctor.plan import Plan
    from egressproxy.policy.openings import Opening


def examine_machine(machine: Machine, plan: Plan) -> Iterator[Finding]:
    """What needs no network; reads only."""
    yield from check_privileges(machine, plan)
    rules = read_rules(Nft()) if plan.is_firewall else None
    if rules is not None:
        digest = plan.policy.digest if plan.policy else ""
        options = plan.firewall.digest if plan.firewall else ""
        yield from check_rules(machine, rules, digest, options)
        yield from check_forwarding(machine, in_force=rules.is_there, is_closed=rules.is_closed)
        yield from check_conntrack(machine, plan)
        yield from check_access(plan, os.environ.get("SSH_CONNECTION", ""))
    yield from check_ports(machine, plan, rules)
    yield from check_source_ports(machine, plan)
    yield from check_files(machine, plan)
    yield from check_review_store(machine, plan)
    yield from check_mtu(machine)
    yield from check_ipv6(machine)
    yield from check_clock(machine, plan, read_clock())


async def examine_names(machine: Machine, plan: Plan) -> list[Finding]:
    """What the DNS servers say; each lookup is bounded, and so are all together."""
    opened: tuple[Opening, ...] = ()
    if plan.policy is not None:
        opened = openings(plan.policy, compile_policy(plan.policy), time.time())
    name = next((each.name for each in opened if not each.is_sample), ASKED)
    servers = servers_of(machine, plan)
    answers = await ask_servers(servers, name, plan.settings.resolve_timeout_s)
    found = list(check_servers(answers))
    if opened and any(each.is_answer for each in answers):
        known = await resolve_openings(opened, plan, servers)
        found += check_zones(opened, known, Guard(own_addresses()))
    return found

"""DNS as the gateway sees it: does each server answer, and which names lead to private addresses.

A private DNS zone linked to the hub's network (Private Link: ``privatelink.azurecr.io`` and the
like) gives a policy's name a private address. The gateway then dials it only where the rule lists
it in ``addresses``; else clients get ``forbidden_address``.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from egressproxy.doctor.finding import fail, ok, warn
from egressproxy.names import DnsName
from egressproxy.resolve.cache import Failure
from egressproxy.resolve.guard import is_never_dialled
from egressproxy.resolve.lookup import look_up_all
from egressproxy.resolve.resolver import Resolver
from egressproxy.resolve.stub import Family, Stub, parse_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from egressproxy.doctor.finding import Finding
    from egressproxy.doctor.machine import Machine
    from egressproxy.doctor.plan import Plan
    from egressproxy.policy.openings import Opening
    from egressproxy.resolve.cache import Answer
    from egressproxy.resolve.guard import Guard

ASKED: Final = DnsName("mcr.microsoft.com")
"""Where the policy has no name of its own to ask for."""
MAX_SERVERS: Final = 8
AT_ONCE: Final = 20
DEADLINE_S: Final = 20.0
SLOW_S: Final = 0.5
_MAX_SHOWN: Final = 3
_FOUND: Final = frozenset({Failure.NONE, Failure.NXDOMAIN, Failure.NO_ADDRESS})


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """What one server said of one name; ``error`` is ``NONE`` for addresses."""

    server: str
    name: DnsName
    error: Failure
    seconds: float

    @property
    def is_answer(self) -> bool:
        """Whether the server did its work, whatever it said of the name."""
        return self.error in _FOUND


def servers_of(machine: Machine, plan: Plan) -> tuple[str, ...]:
    """The plan's, else those of resolv.conf(5)."""
    if plan.servers:
        return tuple(str(server) for server in plan.servers)[:MAX_SERVERS]
    rows = [line.split() for line in machine.text("etc/resolv.conf").splitlines()]
    named = [row[1] for row in rows if len(row) > 1 and row[0] == "nameserver"]
    return tuple(server for server in named if _is_address(server))[:MAX_SERVERS]


async def ask_servers(
    servers: Sequence[str], name: DnsName, timeout_s: float
) -> tuple[ServerAnswer, ...]:
    """Ask each server for one name, all at once."""
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_ask(server, name, timeout_s), name=f"ask {server}")
            for server in servers
        ]
    return tuple(task.result() for task in tasks)


async def resolve_openings(
    opened: Sequence[Opening], plan: Plan, servers: Sequence[str]
) -> dict[DnsName, Answer]:
    """What the gateway's own resolver knows of every name; made-up ones are not asked for."""
    resolver = Resolver(plan.settings, servers=servers, overrides=plan.overrides)
    names = dict.fromkeys(opening.name for opening in opened if not opening.is_sample)
    try:
        return await look_up_all(resolver, names, at_once=AT_ONCE, deadline_s=DEADLINE_S)
    finally:
        await resolver.aclose()


def check_servers(answers: Sequence[ServerAnswer]) -> Iterator[Finding]:
    """Each server by itself: a dead one in front costs every lookup its timeout."""
    if not answers:
        yield fail(
            "DNS", "no server", "no name can be dialled", "--dns 168.63.129.16, or resolv.conf"
        )
    for each in answers:
        check = f"DNS {each.server}"
        if not each.is_answer:
            yield fail(
                check,
                f"{each.error} for {each.name}",
                "a name that does not resolve is not dialled; a dead server delays the others",
                f"dig @{each.server} {each.name}   # NSG, route, or --dns with one that answers",
            )
        elif each.seconds > SLOW_S:
            seen = f"{each.seconds:.1f} s for {each.name}"
            yield warn(
                check, seen, "new connections wait for it", f"dig @{each.server} {each.name}"
            )
        else:
            yield ok(check, f"{each.name} in {each.seconds * 1000:.0f} ms")


def check_zones(
    opened: Sequence[Opening], answers: Mapping[DnsName, Answer], guard: Guard
) -> Iterator[Finding]:
    """Names that do not resolve, and names that lead to private addresses, listed or not."""
    unknown: dict[DnsName, Failure] = {}
    listed: list[str] = []
    seen: set[tuple[DnsName, str]] = set()
    for opening in opened:
        answer = answers.get(opening.name)
        if answer is None or (opening.name, opening.rule.id) in seen:
            continue
        seen.add((opening.name, opening.rule.id))
        if answer.error:
            unknown[opening.name] = answer.error
            continue
        refused = [a for a in answer.addresses if guard.refuses(a, opening.rule.addresses)]
        if refused:
            yield _refused(opening, refused, has_others=len(refused) < len(answer.addresses))
        elif private := [a for a in answer.addresses if guard.refuses(a)]:
            listed.append(f"{opening.name} is {private[0]}")
    if unknown:
        yield _unknown(unknown)
    elif answers:
        yield ok("names", f"all {len(answers)} of the policy resolve")
    if listed:
        more = f" and {len(listed) - _MAX_SHOWN} more" if len(listed) > _MAX_SHOWN else ""
        yield ok("private zones", f"{', '.join(listed[:_MAX_SHOWN])}{more}, as `addresses` lists")


def _refused(opening: Opening, refused: Sequence[str], *, has_others: bool) -> Finding:
    check, rule = f"private zone {opening.name}", opening.rule
    seen = f"{', '.join(refused[:_MAX_SHOWN])}, not in `addresses` of {rule.id} ({rule.origin})"
    why = "clients get forbidden_address: a private DNS zone answers for this name here"
    if is_never_dialled(refused[0]):
        why = "clients get forbidden_address, whatever the policy lists"
        return fail(check, seen, why, "correct the DNS zone: no policy opens this address")
    fix = f"addresses: [{refused[0]}]   # in {rule.id}, or unlink the private zone"
    if has_others:
        return warn(check, seen, "only its other addresses are dialled", fix)
    return fail(check, seen, why, fix)


def _unknown(unknown: Mapping[DnsName, Failure]) -> Finding:
    shown = [f"{name} ({error})" for name, error in list(unknown.items())[:_MAX_SHOWN]]
    more = f" and {len(unknown) - _MAX_SHOWN} more" if len(unknown) > _MAX_SHOWN else ""
    return warn(
        "names",
        f"{len(unknown)} not resolved: {', '.join(shown)}{more}",
        "clients of these names get resolve_failed",
        "egressproxy probe --policy FILE   # says which, and how far each comes",
    )


async def _ask(server: str, name: DnsName, timeout_s: float) -> ServerAnswer:
    future: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
    stub = Stub((parse_server(server),), timeout_s)
    started = time.monotonic()
    try:
        stub.ask(
            name,
            Family.IPV4,
            lambda part: None if future.done() else future.set_result(part.error),
        )
        async with asyncio.timeout(2 * timeout_s):
            error = await future
    except TimeoutError:
        error = Failure.TIMEOUT
    finally:
        seconds = time.monotonic() - started
        await stub.aclose()
    return ServerAnswer(server, name, error, seconds)


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return "%" not in text

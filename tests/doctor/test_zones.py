"""DNS servers one by one, and the private zones that the gateway's resolver sees."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import dns.rcode
import pytest

from egressproxy.doctor.plan import Plan
from egressproxy.doctor.zones import (
    ServerAnswer,
    ask_servers,
    check_servers,
    check_zones,
    resolve_openings,
    servers_of,
)
from egressproxy.names import DnsName
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.openings import openings
from egressproxy.resolve.cache import Answer, Failure
from egressproxy.resolve.guard import Guard
from egressproxy.service.options import Endpoint
from egressproxy.settings import Settings
from tests.doctor.machines import levels, machine
from tests.policy.building import NOON, networks, policy, rule
from tests.resolve.conftest import DnsServer

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.doctor.finding import Finding
    from egressproxy.policy.openings import Opening
    from egressproxy.policy.rules import Rule

NAME = DnsName("a.test")


def opened(*rules: Rule) -> tuple[Opening, ...]:
    whole = policy(*rules)
    return openings(whole, compile_policy(whole), NOON)


@pytest.mark.parametrize(
    ("error", "seconds", "level"),
    [
        (Failure.NONE, 0.01, "ok"),
        (Failure.NXDOMAIN, 0.01, "ok"),
        (Failure.NO_ADDRESS, 0.01, "ok"),
        (Failure.NONE, 2.0, "warn"),
        (Failure.TIMEOUT, 5.0, "fail"),
        (Failure.SERVFAIL, 0.01, "fail"),
    ],
)
def test_a_server(error: Failure, seconds: float, level: str) -> None:
    answer = ServerAnswer("10.0.0.10", NAME, error, seconds)
    assert levels(check_servers([answer])) == {"DNS 10.0.0.10": level}


def test_no_server() -> None:
    assert levels(check_servers([])) == {"DNS": "fail"}


def test_servers_of_the_system(tmp_path: Path) -> None:
    text = (
        "# x\nnameserver 10.0.0.10\nnameserver fe80::1%eth0\nnameserver x\nnameserver\nsearch a\n"
    )
    seen = machine(tmp_path, {"etc/resolv.conf": text + "nameserver 2001:db8::53\n"})
    assert servers_of(seen, Plan()) == ("10.0.0.10", "2001:db8::53")
    assert servers_of(seen, Plan(servers=(Endpoint("10.9.9.9", 53),))) == ("10.9.9.9:53",)


REGISTRY = "myregistry.azurecr.io"
PRIVATE, PUBLIC = "10.50.0.4", "20.1.2.3"


def zones(*addresses: str, listed: str = "", error: Failure = Failure.NONE) -> list[Finding]:
    allowed = networks(listed) if listed else ()
    answers = {DnsName(REGISTRY): Answer(addresses, error=error)}
    return list(check_zones(opened(rule("acr", REGISTRY, addresses=allowed)), answers, Guard()))


def test_a_public_address() -> None:
    assert levels(zones(PUBLIC)) == {"names": "ok"}


def test_a_private_address_that_no_rule_lists() -> None:
    first, _ = zones(PRIVATE)
    assert (first.check, first.level) == (f"private zone {REGISTRY}", "fail")
    assert first.fix.startswith("addresses: [10.50.0.4]   # in acr")
    assert "policy.yaml:7" in first.seen


def test_a_private_address_that_the_rule_lists() -> None:
    found = zones(PRIVATE, listed="10.50.0.0/24")
    assert levels(found) == {"names": "ok", "private zones": "ok"}
    assert f"{REGISTRY} is {PRIVATE}" in found[1].seen


def test_one_address_of_two() -> None:
    assert levels(zones(PUBLIC, PRIVATE))[f"private zone {REGISTRY}"] == "warn"


def test_an_address_that_no_policy_opens() -> None:
    first, _ = zones("127.0.0.1", listed="10.0.0.0/8")
    assert first.level == "fail"
    assert "addresses:" not in first.fix


def test_names_that_do_not_resolve() -> None:
    (found,) = zones(error=Failure.NXDOMAIN)
    assert found.level == "warn"
    assert f"{REGISTRY} (nxdomain)" in found.seen


async def _real() -> None:
    async with DnsServer() as server:
        server.add("a.test", "A", PUBLIC)
        server.add("b.test", "A", PRIVATE)
        server.both("c.test", rcode=dns.rcode.REFUSED)
        server.script("d.test", "A").is_silent = True
        names = opened(rule("r", "a.test", "b.test", "c.test", "*.e.test"))
        plan = Plan(settings=Settings(resolve_timeout_s=1))
        answers = await resolve_openings(names, plan, [server.address])
        assert {str(name): (a.addresses, str(a.error)) for name, a in answers.items()} == {
            "a.test": ((PUBLIC,), ""),
            "b.test": ((PRIVATE,), ""),
            "c.test": ((), "servfail"),
        }
        assert not server.asked("sample.e.test")
        found = await ask_servers([server.address] * 2, NAME, 1.0)
        assert [each.error for each in found] == [Failure.NONE] * 2
        (silent,) = await ask_servers([server.address], DnsName("d.test"), 0.2)
        assert silent.error is Failure.TIMEOUT
        (refused,) = await ask_servers([server.address], DnsName("c.test"), 1.0)
        assert not refused.is_answer


def test_a_real_server() -> None:
    asyncio.run(_real())

"""All checks together, on the machine that runs the tests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from egressproxy.doctor.examine import examine_machine, examine_names
from egressproxy.doctor.machine import Machine
from egressproxy.doctor.plan import Plan
from egressproxy.service.options import Endpoint
from egressproxy.settings import Settings
from lab.namespaces import namespaces
from tests.doctor.machines import levels
from tests.policy.building import policy, rule
from tests.resolve.conftest import DnsServer

if TYPE_CHECKING:
    from pathlib import Path

EVERYWHERE = {"capabilities", "other listeners", "source ports", "open files", "IPv6", "clock"}


def test_a_proxy_alone() -> None:
    found = levels(examine_machine(Machine(), Plan(is_firewall=False)))
    assert found.keys() >= EVERYWHERE
    assert found["capabilities"] == "ok"
    assert not found.keys() & {"nft", "forwarding", "conntrack"}


@pytest.mark.netns
def test_a_firewall(tmp_path: Path) -> None:
    with namespaces(("doctor",), tmp_path) as made, made["doctor"].entered():
        found = levels(examine_machine(Machine(), Plan()))
    assert found.keys() >= EVERYWHERE | {"nft", "forwarding", "conntrack", "rp_filter"}
    assert found["nft"] == "ok"
    assert found["default route"] == "fail"


async def _names() -> None:
    async with DnsServer() as server:
        server.add("a.test", "A", "10.50.0.4")
        plan = Plan(
            servers=(Endpoint("127.0.0.1", server.port),),
            policy=policy(rule("r", "a.test")),
            settings=Settings(resolve_timeout_s=1),
        )
        found = levels(await examine_names(Machine(), plan))
        assert found[f"DNS 127.0.0.1:{server.port}"] == "ok"
        assert found["private zone a.test"] == "fail"
        lonely = Plan(servers=plan.servers)
        assert levels(await examine_names(Machine(), lonely)).keys() == {f"DNS {plan.servers[0]}"}


def test_names() -> None:
    asyncio.run(_names())

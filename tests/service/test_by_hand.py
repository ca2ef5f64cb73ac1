"""What is closed after a table was put by hand, in a real kernel."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.kernel.firewall_options import PRIVATE, FirewallOptions
from egressproxy.kernel.kernel_policy import kernel_policy
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.nft_names import name_sets
from egressproxy.kernel.nft_script import table_script
from egressproxy.kernel.routing import ensure_guard
from egressproxy.kernel.sysctls import ensure_sysctls
from egressproxy.names import DnsName
from egressproxy.service.by_hand import Closed, close_denied
from egressproxy.service.forwarded import Revocation
from tests.kernel.one_nic import CLIENT, SERVER, one_nic, udp
from tests.policy.building import NOON, networks, policy, rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from egressproxy.policy.rules import Policy
    from tests.kernel.one_nic import OneNic

pytestmark = pytest.mark.netns

DB: Final = DnsName("db.example")
SUBNET: Final = networks("10.50.0.0/24")
INSIDE: Final = "10.50.0.9"
BY_NAME: Final = rule("r", "db.example", ports="udp:7000-7009", addresses=SUBNET)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[OneNic]:
    with one_nic(tmp_path) as built, built.hub.entered():
        ensure_guard()
        ensure_sysctls(tmp_path / "state.json")
        yield built


def put(made: Policy) -> Closed:
    nft, kernel = Nft(), kernel_policy(made, NOON)
    nft.apply(table_script(kernel, FirewallOptions(), nft.table_state()))
    return close_denied(made, kernel, PRIVATE, nft)


def elements() -> set[str]:
    return {address for address, _ in Nft().timed_elements()[name_sets(DB)[0]]}


def test_addresses_that_are_allowed_no_more_leave_the_set(net: OneNic) -> None:
    assert put(policy(BY_NAME)) == Closed(0, Revocation())
    Nft().add_elements(name_sets(DB)[0], [(INSIDE, 600), (SERVER[4], 600)])
    assert put(policy(BY_NAME)) == Closed(0, Revocation())
    assert elements() == {INSIDE, SERVER[4]}
    less = policy(rule("r", "db.example", ports="udp:7000-7009"))
    assert put(less) == Closed(1, Revocation())
    assert elements() == {SERVER[4]}


def test_connections_that_are_denied_are_ended_and_others_stay(net: OneNic) -> None:
    put(policy(BY_NAME))
    Nft().add_elements(name_sets(DB)[0], [(SERVER[4], 600)])
    with ExitStack() as stack:
        first, second = (stack.enter_context(udp(net.server, SERVER[4], 7000 + n)) for n in (0, 1))
        client = stack.enter_context(udp(net.client, CLIENT[4]))
        for server in (first, second):
            client.sendto(b"asked", server.getsockname())
            assert server.recv(100) == b"asked"
        less = policy(rule("r", "db.example", ports="udp:7001", addresses=SUBNET))
        assert put(less) == Closed(0, Revocation(revoked=1))
        client.sendto(b"denied", first.getsockname())
        client.sendto(b"again", second.getsockname())
        assert second.recv(100) == b"again"
        first.settimeout(0.2)
        with pytest.raises(TimeoutError):
            first.recv(100)

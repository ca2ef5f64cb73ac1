"""Everything that the kernel needs, put up in one, seen to be amiss, and put back."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Final

import pytest
import structlog

from egressproxy.errors import KernelError
from egressproxy.kernel.firewall_options import FirewallOptions, Intercept
from egressproxy.kernel.kernel_policy import KernelPolicy, kernel_policy
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.nft_names import Outcome
from egressproxy.kernel.routing import RoutingState, ensure_tproxy, routing_state
from egressproxy.kernel.takeover import take_back
from egressproxy.service.journal import configure_journal
from egressproxy.service.kernel_rules import KernelRules
from tests.kernel.one_nic import SERVER, one_nic, udp
from tests.policy.building import NOON, policy, rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.one_nic import OneNic

pytestmark = pytest.mark.netns

OPTIONS: Final = FirewallOptions(redirect_port=15001)
TPROXY: Final = FirewallOptions(intercept=Intercept.TPROXY, tproxy_port=15001)
UDP_9: Final = rule("rules/nine", SERVER[4], ports="udp:9")
WEB: Final = rule("rules/web", "www.example", ports="https")


def made(*rules: object, digest: str = "0" * 64) -> KernelPolicy:
    return kernel_policy(policy(*rules, digest=digest), NOON)  # type: ignore[arg-type]


OLD: Final = made(UDP_9, WEB)
NEW: Final = made(WEB, digest="1" * 64)


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_journal(stream)
    yield stream
    structlog.reset_defaults()


@pytest.fixture
def net(tmp_path: Path, said: io.StringIO) -> Iterator[OneNic]:
    with one_nic(tmp_path) as built, built.hub.entered():
        yield built


def rules_of(
    tmp_path: Path, options: FirewallOptions = OPTIONS, nft: Nft | None = None
) -> KernelRules:
    return KernelRules(options, tmp_path / "state.json", OLD, nft)


def test_all_is_put_up_and_all_is_well(net: OneNic, tmp_path: Path, said: io.StringIO) -> None:
    rules = rules_of(tmp_path)
    assert not net.forwards(4)
    rules.put_up()
    assert not rules.problems(elements=True)
    assert net.sysctl("net/ipv4/ip_forward") == "1"
    assert routing_state().guard
    event = json.loads(said.getvalue().splitlines()[-1])
    assert (event["event"], event["network_rules"]) == ("the kernel's firewall is up", 1)
    rules.put_up()  # over what is there
    assert not rules.problems(elements=True)


@pytest.mark.parametrize("options", [OPTIONS, TPROXY], ids=["redirect", "tproxy"])
def test_the_routing_is_that_of_the_interception(
    options: FirewallOptions, net: OneNic, tmp_path: Path
) -> None:
    ensure_tproxy()  # of a service before, with other options
    rules_of(tmp_path, options).put_up()
    wanted = options is TPROXY
    assert routing_state() == RoutingState(guard=True, tproxy=wanted)


def test_a_rule_before_the_guard_is_told(net: OneNic, tmp_path: Path, said: io.StringIO) -> None:
    net.hub.run("ip", "rule", "add", "pref", "50", "lookup", "main")
    rules_of(tmp_path).put_up()
    assert "another routing rule comes before the guard" in said.getvalue()


class Failing(Nft):
    """Fails in one of its calls, once it is told to."""

    def __init__(self, *failing: str) -> None:
        super().__init__()
        self.failing = set(failing)

    def check(self, script: str) -> None:
        self._fail("check")
        super().check(script)

    def apply(self, script: str) -> None:
        self._fail("apply")
        super().apply(script)

    def _fail(self, call: str) -> None:
        if call in self.failing:
            raise KernelError(f"no {call}")


def test_what_is_missing_is_told_before_anything_changes(net: OneNic, tmp_path: Path) -> None:
    for nft in (Nft("/nonexistent/nft"), Failing("check")):
        with pytest.raises(KernelError):
            rules_of(tmp_path, nft=nft).put_up()
        assert not routing_state().guard
        assert net.sysctl("net/ipv4/ip_forward") == "0"


def test_what_is_up_in_part_is_closed_and_told(
    net: OneNic, tmp_path: Path, said: io.StringIO
) -> None:
    """The kernel takes the check, and then not the table."""
    with pytest.raises(KernelError):
        rules_of(tmp_path, nft=Failing("apply")).put_up()
    assert routing_state().guard
    assert "egressproxy down takes it back" in said.getvalue()
    assert take_back(Nft(), tmp_path / "state.json").routing


CHANGES: Final = {
    "nft flush ruleset": "the table is gone",
    "ip rule del pref 103": "the routing guard was changed",
    "ip -6 rule del pref 100": "the routing guard was changed",
    "ip rule del pref 101": "the routing of TPROXY was changed",
    "ip route flush table 10101": "the routing of TPROXY was changed",
    "sysctl -qw net.ipv4.ip_forward=0": "net.ipv4.ip_forward is 0, not 1",
    "sysctl -qw net.netfilter.nf_conntrack_tcp_loose=1": "nf_conntrack_tcp_loose is 1, not 0",
}


@pytest.mark.parametrize("command", CHANGES)
def test_what_is_amiss_is_told_and_put_back(command: str, net: OneNic, tmp_path: Path) -> None:
    rules = rules_of(tmp_path, TPROXY)
    rules.put_up()
    net.hub.run(*command.split())
    assert CHANGES[command] in "; ".join(rules.problems())
    assert rules.put_back() is (command == "nft flush ruleset")
    assert not rules.problems(elements=True)


def test_a_reload_closes_first_and_opens_last(net: OneNic, tmp_path: Path) -> None:
    """What the old policy alone forwards is closed at once, what the new one alone at the end."""
    rules = rules_of(tmp_path)
    rules.put_up()
    other = made(rule("rules/ten", SERVER[4], ports="udp:10"), WEB, digest="1" * 64)
    assert passes(net) == {9}
    assert rules.close_first(other)
    assert rules.policy is OLD
    assert passes(net) == set()
    assert not rules.problems()
    rules.open_last(other)
    assert rules.policy is other
    assert passes(net) == {10}
    assert not rules.problems()


def test_where_the_kernel_is_told_nothing_new_nothing_is_closed(
    net: OneNic, tmp_path: Path
) -> None:
    rules = rules_of(tmp_path)
    rules.put_up()
    table = Nft().table_state()
    same = made(UDP_9, WEB, digest="2" * 64)
    assert not rules.close_first(same)
    assert Nft().table_state() == table
    rules.open_last(same)
    found = Nft().table_state()
    assert found is not None
    assert found.digest == "2" * 64


@pytest.mark.parametrize("call", ["check", "apply"])
def test_a_policy_that_the_kernel_refuses_changes_nothing(
    call: str, net: OneNic, tmp_path: Path
) -> None:
    nft = Failing()
    rules = rules_of(tmp_path, nft=nft)
    rules.put_up()
    nft.failing.add(call)
    with pytest.raises(KernelError):
        rules.close_first(NEW)
    nft.failing.clear()
    assert rules.policy is OLD
    assert passes(net) == {9}
    assert not rules.problems()


def test_what_cannot_be_opened_is_put_up_later(net: OneNic, tmp_path: Path) -> None:
    nft = Failing()
    rules = rules_of(tmp_path, nft=nft)
    rules.put_up()
    assert rules.close_first(NEW)
    nft.failing.add("apply")
    with pytest.raises(KernelError):
        rules.open_last(NEW)
    nft.failing.clear()
    assert rules.problems() == ("the table was changed",)
    assert passes(net) == set()
    rules.put_back()
    assert not rules.problems()
    assert rules.judged()[Outcome.DEFAULT_DENY] >= 1


def test_a_full_disk_keeps_no_policy_out(net: OneNic, tmp_path: Path, said: io.StringIO) -> None:
    """Nor is the table put back for ever."""
    rules = rules_of(tmp_path)
    rules.put_up()
    (tmp_path / "state.json").unlink()
    (tmp_path / "state.json").mkdir()
    assert rules.close_first(NEW)
    rules.open_last(NEW)
    assert not rules.problems(elements=True)
    assert said.getvalue().count("cannot be remembered") == 1


def test_a_damaged_state_file_is_told_before_anything_changes(net: OneNic, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("damaged")
    with pytest.raises(KernelError, match="damaged"):
        rules_of(tmp_path).put_up()
    assert not routing_state().guard
    assert Nft().table_state() is None


def test_judged_packets_by_what_became_of_them(net: OneNic, tmp_path: Path) -> None:
    rules = rules_of(tmp_path)
    assert rules.judged() == {}
    rules.put_up()
    passes(net)
    rules.problems()
    found = rules.judged()
    assert (found["rule_allow"], found[Outcome.DEFAULT_DENY]) == (1, 2)
    assert found["rule_deny"] == found["rule_would_deny"] == 0


def test_down_takes_back_all_of_it(net: OneNic, tmp_path: Path) -> None:
    rules_of(tmp_path, TPROXY).put_up()
    removed = take_back(Nft(), tmp_path / "state.json")
    assert removed.sysctls
    assert (removed.table, removed.routing) == (True, True)
    assert net.sysctl("net/ipv4/ip_forward") == "0"


def passes(net: OneNic) -> set[int]:
    """Which of the ports 9, 10 and 11 of the server a datagram of the client reaches.

    No time is measured: a datagram goes through the hub as it is sent, so what is not there before
    the hub's own will not come.
    """
    found = set()
    for port in (9, 10, 11):
        with udp(net.client, "10.97.0.1") as client, udp(net.server, SERVER[4], port) as server:
            with udp(net.hub, "20.97.0.2") as own:
                client.sendto(b"forwarded", server.getsockname())
                own.sendto(b"own", server.getsockname())
            if server.recv(100) == b"forwarded":
                found.add(port)
    return found

"""What is wrong with a firewall, and whose counters and sets those are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.kernel.firewall_options import FirewallOptions, Intercept
from egressproxy.kernel.firewall_status import Count, SetSize, firewall_status
from egressproxy.kernel.kernel_policy import KernelPolicy, KernelRule
from egressproxy.kernel.nft_apply import Counter, SetState, TableState
from egressproxy.kernel.nft_names import Outcome, name_sets, rule_counter
from egressproxy.kernel.routing import RoutingState
from egressproxy.kernel.sysctls import Difference
from egressproxy.kernel.takeover import Takeover
from egressproxy.names import DnsName
from egressproxy.policy.verdict import Action
from egressproxy.ports import PortSpan, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

NTP: Final = DnsName("ntp.ubuntu.com")
SPANS: Final = (PortSpan(Protocol.UDP, 123, 123),)
POLICY: Final = KernelPolicy(
    rules=(
        KernelRule(id="b", action=Action.ALLOW, would_deny=False, spans=SPANS, names=(NTP,)),
        KernelRule(id="a", action=Action.DENY, would_deny=False, spans=SPANS, any_destination=True),
        KernelRule(id="c", action=Action.DENY, would_deny=True, spans=SPANS, any_destination=True),
    ),
    application_ports=(443,),
    is_audit=False,
    digest="a" * 64,
)
FOUR, SIX = name_sets(NTP)
COUNTERS: Final[Mapping[str, Counter]] = {
    rule_counter("a"): Counter(1, 60, "a"),
    rule_counter("b"): Counter(2, 120, "b"),
    rule_counter("c"): Counter(0, 0, "c"),
    Outcome.DEFAULT_DENY: Counter(3, 180),
    Outcome.PROXIED: Counter(4, 240),
}
TABLE: Final = TableState(
    digest="a" * 64,
    fingerprint="f",
    chains=frozenset({"forward"}),
    sets={
        "s4_1": SetState("ipv4_addr", frozenset({"interval"}), 7),
        SIX: SetState("ipv6_addr", frozenset({"timeout"}), 1),
        FOUR: SetState("ipv4_addr", frozenset({"timeout"}), 2),
    },
    counters=COUNTERS,
)
WELL: Final = Takeover(
    table=TABLE,
    is_changed=False,
    routing=RoutingState(guard=True, tproxy=True),
    sysctls=(),
    is_forwarding=True,
)
OPTIONS: Final = FirewallOptions(redirect_port=15001)


def test_all_is_well() -> None:
    found = firewall_status(WELL, POLICY, OPTIONS)
    assert found.problems == ()
    assert found.policy_digest == "a" * 64
    assert found.outcomes == (
        Count("proxied", "proxied", 4, 240, "proxy"),
        Count("default_deny", "default_deny", 3, 180, "drop"),
    )
    assert found.rules == (
        Count("b", rule_counter("b"), 2, 120, "allow"),
        Count("a", rule_counter("a"), 1, 60, "drop"),
        Count("c", rule_counter("c"), 0, 0, "audit"),
    )
    assert found.sets == (
        SetSize("ntp.ubuntu.com", FOUR, "ipv4_addr", 2),
        SetSize("ntp.ubuntu.com", SIX, "ipv6_addr", 1),
        SetSize("", "s4_1", "ipv4_addr", 7),
    )


def test_without_a_policy_counters_say_whose_they_are() -> None:
    found = firewall_status(WELL, None, OPTIONS)
    assert found.problems == ()
    assert found.policy_digest == ""
    assert {each.of for each in found.rules} == {"a", "b", "c"}
    assert {each.action for each in found.rules} == {""}
    assert [each.of for each in found.sets] == ["", "", ""]


NO_TABLE: Final = replace(WELL, table=None, is_changed=None)
NO_GUARD: Final = replace(NO_TABLE, routing=RoutingState())
WITHOUT_TABLE: Final = {
    "closed by the guard": (NO_TABLE, ("there is no table: egressproxy up (or nft apply)",)),
    "open": (
        NO_GUARD,
        (
            "there is no table: egressproxy up (or nft apply)",
            "nor is the routing guard: this machine forwards packets that nobody judges",
        ),
    ),
    "a machine as it was": (
        replace(
            NO_GUARD,
            is_forwarding=False,
            sysctls=(Difference("net/ipv4/ip_forward", "1", "0"),),
        ),
        ("nothing of ours is in place, and this machine does not forward: egressproxy up",),
    ),
}


@pytest.mark.parametrize("case", WITHOUT_TABLE)
def test_without_a_table_there_is_nothing_to_show(case: str) -> None:
    given, problems = WITHOUT_TABLE[case]
    found = firewall_status(given, POLICY, OPTIONS, are_whole=True, listening=())
    assert found.problems == problems
    assert (found.outcomes, found.rules, found.sets) == ((), (), ())


ON_15001: Final = replace(TABLE, proxy_ports=frozenset({15001}))
LISTENERS: Final[dict[str, tuple[TableState, KernelPolicy | None, set[int] | None, int]]] = {
    "ours": (ON_15001, POLICY, {22, 15001}, 0),
    "nobody": (ON_15001, POLICY, {22}, 1),
    "nobody, and no policy": (ON_15001, None, set(), 1),
    "not asked for": (ON_15001, POLICY, None, 0),
    "no application ports": (ON_15001, replace(POLICY, application_ports=()), set(), 0),
    "a table that takes nothing": (TABLE, POLICY, set(), 0),
}


@pytest.mark.parametrize("case", LISTENERS)
def test_a_service_that_is_gone_is_told(case: str) -> None:
    table, policy, listening, count = LISTENERS[case]
    given = replace(WELL, table=table)
    problems = firewall_status(given, policy, OPTIONS, listening=listening).problems
    assert len(problems) == count
    assert all("port 15001, and nobody listens there" in each for each in problems)


OTHERS: Final = replace(OPTIONS, clients=OPTIONS.clients[:1])
MADE_OF: Final = {
    "these": (OPTIONS.digest, True, 0),
    "others": (OTHERS.digest, True, 1),
    "others, and not all were given": (OTHERS.digest, False, 0),
    "nobody knows": ("", True, 0),
}


@pytest.mark.parametrize("case", MADE_OF)
def test_options_that_are_not_in_force_are_told(case: str) -> None:
    digest, are_whole, count = MADE_OF[case]
    given = replace(WELL, table=replace(TABLE, options=digest))
    problems = firewall_status(given, POLICY, OPTIONS, are_whole=are_whole).problems
    assert len(problems) == count
    assert all("systemctl restart egressproxy" in each for each in problems)


AUDIT: Final = replace(POLICY, is_audit=True)
AUDITS: Final[dict[str, tuple[Takeover, KernelPolicy | None, bool]]] = {
    "an audit": (WELL, AUDIT, True),
    "none": (WELL, POLICY, False),
    "not in force": (WELL, replace(AUDIT, digest="b" * 64), False),
    "no table": (NO_TABLE, AUDIT, False),
    "not known": (WELL, None, False),
}


@pytest.mark.parametrize("case", AUDITS)
def test_an_audit_in_force_is_told(case: str) -> None:
    found, policy, is_audit = AUDITS[case]
    assert firewall_status(found, policy, OPTIONS).is_audit is is_audit


def table(**changes: object) -> Takeover:
    return replace(WELL, table=replace(TABLE, **changes))  # type: ignore[arg-type]  # as given


MORE: Final = {**COUNTERS, rule_counter("gone"): Counter(5, 5, "gone")}
CASES: Final[dict[str, tuple[Takeover, str]]] = {
    "another policy": (table(digest="b" * 64), "policy bbbbbbbbbbbb is in force, not aaaaaaaaaaaa"),
    "between two": (table(digest=""), "between two policies, or none of ours"),
    "a rule that is over by now": (table(counters=MORE), "other rules than the policy has today"),
    "changed": (replace(WELL, is_changed=True), "somebody changed the table"),
    "a damaged state file": (
        replace(WELL, is_changed=None, forgotten="/run/s.json: damaged (hint: remove it)"),
        "/run/s.json: damaged (hint: remove it)",
    ),
    "no guard": (
        replace(WELL, routing=RoutingState(tproxy=True)),
        "the routing guard is not in place",
    ),
    "a rule before the guard": (
        replace(WELL, routing=RoutingState(guard=True, tproxy=True, ahead=("ip rule 9: x",))),
        "a routing rule comes before the guard: ip rule 9: x",
    ),
    "a sysctl": (
        replace(WELL, sysctls=(Difference("net/ipv4/ip_forward", "1", "0"),)),
        "sysctls: net.ipv4.ip_forward is 0, not 1: egressproxy up",
    ),
    "many sysctls": (
        replace(WELL, sysctls=(Difference("net/ipv4/tcp_migrate_req", "1", ""),) * 5),
        "net.ipv4.tcp_migrate_req is missing, not 1, and 2 more: egressproxy up",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_problem_is_told_alone(case: str) -> None:
    found, told = CASES[case]
    (problem,) = firewall_status(found, POLICY, OPTIONS).problems
    assert told in problem


def test_too_many_names_are_told() -> None:
    (problem,) = firewall_status(WELL, replace(POLICY, names_left_out=3), OPTIONS).problems
    assert "too many names: 3" in problem


TPROXY: Final = {
    "redirect needs none": (OPTIONS, 0),
    "tproxy": (FirewallOptions(intercept=Intercept.TPROXY, tproxy_port=15002), 1),
    "no listener": (FirewallOptions(intercept=Intercept.TPROXY), 0),
}


@pytest.mark.parametrize("case", TPROXY)
def test_the_routing_of_tproxy_is_missed_where_it_is_needed(case: str) -> None:
    options, problems = TPROXY[case]
    found = replace(WELL, routing=RoutingState(guard=True))
    status = firewall_status(found, POLICY, options)
    assert len(status.problems) == problems
    assert status.wants_tproxy is bool(problems)

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.kernel import kernel_policy as module
from egressproxy.kernel.kernel_policy import KernelRule, Ranges, kernel_policy
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.rules import Mode
from tests.policy.building import (
    ALLOW,
    DENY,
    NOON,
    TODAY,
    TOMORROW,
    YESTERDAY,
    name_list,
    networks,
    policy,
    rule,
)

if TYPE_CHECKING:
    from egressproxy.policy.rules import Policy

TO: Final = "20.1.0.0/16"


def only(document: Policy) -> KernelRule:
    (made,) = kernel_policy(document, NOON).rules
    return made


@pytest.mark.parametrize(
    ("why", "to", "more"),
    [
        ("judged by name", "www.example", {"ports": "https http tls:8443"}),
        ("over since yesterday", TO, {"ports": "tcp:1", "until": YESTERDAY}),
        ("a trial that is over", TO, {"ports": "tcp:1", "audit": True, "audit_until": YESTERDAY}),
        ("for nobody", TO, {"ports": "tcp:1", "sources": ()}),
        ("nothing with addresses", "*.example", {"ports": "tcp:1"}),
    ],
)
def test_rules_that_the_kernel_does_not_have(why: str, to: str, more: dict[str, Any]) -> None:
    assert not kernel_policy(policy(rule("rules/r", to, **more)), NOON).rules, why


@pytest.mark.parametrize(
    ("action", "mode", "more", "passes", "would_deny"),
    [
        (ALLOW, Mode.ENFORCE, {}, True, False),
        (ALLOW, Mode.ENFORCE, {"until": TODAY}, True, False),
        (ALLOW, Mode.ENFORCE, {"audit": True}, True, True),
        (ALLOW, Mode.AUDIT, {}, True, False),
        (DENY, Mode.ENFORCE, {}, False, False),
        (DENY, Mode.ENFORCE, {"audit": True, "audit_until": TOMORROW}, True, True),
        (DENY, Mode.ENFORCE, {"audit": True, "audit_until": YESTERDAY}, False, False),
        (DENY, Mode.AUDIT, {}, True, True),
    ],
)
def test_what_a_match_does(
    action: Any, mode: Mode, more: dict[str, Any], passes: bool, would_deny: bool
) -> None:
    made = only(policy(rule("rules/r", TO, ports="tcp:1", action=action, **more), mode=mode))
    assert (made.passes, made.would_deny, made.action) == (passes, would_deny, action)


@pytest.mark.parametrize(("action", "listed"), [(ALLOW, True), (DENY, False)])
def test_addresses_are_those_of_the_rule_itself(action: Any, listed: bool) -> None:
    """Ids of rules without one shift with the lines of a file: nothing is looked up by them."""
    subnet = networks("10.50.0.0/24")
    document = policy(rule("r", "db.example", ports="tcp:1", action=action, addresses=subnet))
    assert only(document).addresses == (subnet if listed else ())


@pytest.mark.parametrize(
    ("until", "is_audit"), [(None, True), (TODAY, True), (TOMORROW, True), (YESTERDAY, False)]
)
def test_audit_ends_with_its_day(until: Any, is_audit: bool) -> None:
    assert kernel_policy(policy(mode=Mode.AUDIT, audit_until=until), NOON).is_audit == is_audit


def test_warn_on_new_is_about_names_and_the_kernel_enforces() -> None:
    deny = rule("d", "20.1.0.0/16", ports="tcp:22", action=DENY)
    found = kernel_policy(policy(deny, mode=Mode.WARN_ON_NEW, warn_until=TOMORROW), NOON)
    assert not found.is_audit
    assert [each.would_deny for each in found.rules] == [False]


@pytest.mark.parametrize(
    ("ports", "spans"),
    [
        ("tcp:1", ["tcp:1"]),
        ("tcp:5-9 tcp:1-4", ["tcp:1-9"]),
        ("tcp:1-9 tcp:3", ["tcp:1-9"]),
        ("tcp:1 tcp:3", ["tcp:1", "tcp:3"]),
        ("udp:2 tcp:1 https", ["tcp:1", "udp:2"]),
        ("tcp:65535 udp:1", ["tcp:65535", "udp:1"]),
    ],
)
def test_ports_are_joined(ports: str, spans: list[str]) -> None:
    assert [str(span) for span in only(policy(rule("rules/r", TO, ports=ports))).spans] == spans


def test_ranges_are_collapsed_by_family() -> None:
    to = ["20.0.0.0/9", "20.128.0.0/9", "20.1.0.0/16", "2001:db8::/33", "2001:db8:8000::/33"]
    made = only(policy(rule("rules/r", *to, ports="tcp:1", sources="10.1.0.0/24 10.1.0.7")))
    assert made.destinations == Ranges.of(networks("20.0.0.0/8", "2001:db8::/32"))
    assert made.sources == Ranges.of(networks("10.1.0.0/24"))
    assert made.sources.v6 == ()


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(24, 32)), max_size=20))
def test_collapsing_changes_no_address(parts: list[tuple[int, int]]) -> None:
    given_networks = networks(*(f"10.0.0.{last}/32" for last, _ in parts))
    wide = [
        net.supernet(new_prefix=length)
        for net, (_, length) in zip(given_networks, parts, strict=True)
    ]
    made = Ranges.of(wide)
    for last in range(256):
        address = ip_address(f"10.0.0.{last}")
        found = sum(address in net for net in made.v4)
        assert found == any(address in net for net in wide)


def test_names_are_exact_ones_of_the_rule_and_its_lists() -> None:
    document = policy(
        rule(
            "rules/r",
            "a.example",
            "b.example",
            ports="udp:123",
            lists=(name_list("c.example", "a.example"),),
        )
    )
    assert only(document).names == ("a.example", "b.example", "c.example")


def test_names_above_the_limit_open_nothing_and_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_NAMES", 2)
    listed = name_list("a.example", "b.example", "c.example", "d.example")
    made = kernel_policy(
        policy(
            rule("rules/1", ports="tcp:1", lists=(listed,)),
            rule("rules/2", "b.example", "c.example", ports="tcp:2"),
        ),
        NOON,
    )
    assert [each.names for each in made.rules] == [("a.example", "b.example"), ("b.example",)]
    assert made.names_left_out == 2


def test_application_ports_are_those_the_proxy_listens_for() -> None:
    document = policy(
        rule("rules/1", "a.example", ports="https tls:8443"),
        rule("rules/2", "b.example", ports="http", until=YESTERDAY),
        rule("rules/3", TO, ports="tcp:22"),
    )
    made = kernel_policy(document, NOON)
    assert made.application_ports == (80, 443, 8443)
    assert set(made.application_ports) == {
        port for _, port in compile_policy(document).application_ports()
    }


def test_the_digest_is_the_policys() -> None:
    document = replace(policy(), digest="ab" * 32)
    assert kernel_policy(document, NOON).digest == "ab" * 32

from __future__ import annotations

from typing import Any

import pytest

from egressproxy.kernel.kernel_policy import kernel_policy
from egressproxy.kernel.nft_names import name_sets, range_set, rule_counter
from egressproxy.kernel.nft_rules import counted, port_set, rule_lines
from egressproxy.kernel.nft_sets import Sets
from egressproxy.names import DnsName
from tests.policy.building import NOON, policy, rule

N4, N6 = name_sets(DnsName("ntp.example"))
MANY = [f"20.0.{i}.0/24" for i in range(0, 20, 2)]
S4 = range_set(4, ", ".join(MANY))


@pytest.mark.parametrize(
    ("to", "more", "lines"),
    [
        (["20.1.2.3"], {"ports": "tcp:443"}, ["ip daddr 20.1.2.3 tcp dport 443"]),
        (
            ["20.1.0.0/16", "20.3.0.0/16", "2001:db8::/32"],
            {"ports": "tcp:1-9 udp:53 tcp:80"},
            [
                "ip daddr { 20.1.0.0/16, 20.3.0.0/16 } tcp dport { 1-9, 80 }",
                "ip daddr { 20.1.0.0/16, 20.3.0.0/16 } udp dport 53",
                "ip6 daddr 2001:db8::/32 tcp dport { 1-9, 80 }",
                "ip6 daddr 2001:db8::/32 udp dport 53",
            ],
        ),
        (["any"], {"ports": "udp:123"}, ["udp dport 123"]),
        (
            ["any"],
            {"ports": "udp:123", "sources": "10.1.0.0/24"},
            ["ip saddr 10.1.0.0/24 udp dport 123"],
        ),
        (
            ["any", "20.1.2.3"],
            {"ports": "tcp:1", "sources": "10.1.0.0/24 fd01::/64"},
            ["ip saddr 10.1.0.0/24 tcp dport 1", "ip6 saddr fd01::/64 tcp dport 1"],
        ),
        (
            ["2001:db8::1", "20.1.2.3"],
            {"ports": "tcp:1", "sources": "fd01::/64"},
            ["ip6 saddr fd01::/64 ip6 daddr 2001:db8::1 tcp dport 1"],
        ),
        (
            ["0.0.0.0/0", "::/0"],
            {"ports": "tcp:1"},
            ["meta nfproto ipv4 tcp dport 1", "meta nfproto ipv6 tcp dport 1"],
        ),
        (
            ["ntp.example", "20.1.2.3"],
            {"ports": "udp:123"},
            [
                "ip daddr 20.1.2.3 udp dport 123",
                f"ip daddr @{N4} udp dport 123",
                f"ip6 daddr @{N6} udp dport 123",
            ],
        ),
        (MANY, {"ports": "tcp:1"}, [f"ip daddr @{S4} tcp dport 1"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_rule_is_a_line_for_each_family_protocol_and_destination(
    to: list[str], more: dict[str, Any], lines: list[str]
) -> None:
    made = kernel_policy(policy(rule("rules/a b", *to, **more)), NOON).rules
    end = f'counter name "{rule_counter("rules/a b")}" goto allow comment "rules/a b"'
    found = list(rule_lines(made, Sets(), lambda each: counted(each, "allow")))
    assert found == [f"{line} {end}" for line in lines]


def test_one_port_is_a_value_and_more_are_a_set() -> None:
    assert port_set(["443"]) == "443"
    assert port_set(["80", "443"]) == "{ 80, 443 }"

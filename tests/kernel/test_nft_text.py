from __future__ import annotations

import pytest

from egressproxy.kernel.firewall_options import FirewallOptions
from egressproxy.kernel.nft_names import LogWord, Outcome
from egressproxy.kernel.nft_sets import Sets
from egressproxy.kernel.nft_text import Chain, count, has, inside, lacks, log, outside, put
from tests.policy.building import networks


def test_a_chain_is_its_comment_its_hook_and_its_rules() -> None:
    hook = "type filter hook input priority filter; policy drop;"
    chain = Chain("c", 'says "it"', ("accept",), hook)
    assert list(chain.text()) == [
        "chain c {",
        '\tcomment "says _it_"',
        f"\t{hook}",
        "\taccept",
        "}",
    ]


def test_marks_are_asked_for_and_set_under_a_mask() -> None:
    assert has("ct", 0x100) == "ct mark & 0x00000100 != 0"
    assert lacks("meta", 0x100) == "meta mark & 0x00000100 == 0"
    assert put("meta", 0x100) == "meta mark set meta mark | 0x00000100"
    assert put("ct", 1, instead_of=2) == "ct mark set ct mark & 0xfffffffd | 0x00000001"


def test_logging_has_a_rate_and_counting_has_none() -> None:
    text = log(LogWord.DENY, FirewallOptions(log_rate=7, nflog_group=3))
    assert text == (
        'limit rate 7/second burst 7 packets log prefix "deny"'
        " group 3 snaplen 160 queue-threshold 32"
    )
    assert count(Outcome.INPUT) == 'counter name "input"'


@pytest.mark.parametrize(
    ("given_networks", "within", "without"),
    [
        (["10.0.0.0/8"], ["ip saddr 10.0.0.0/8"], ["ip saddr != 10.0.0.0/8", "meta nfproto ipv6"]),
        (["fd00::1"], ["ip6 saddr fd00::1"], ["meta nfproto ipv4", "ip6 saddr != fd00::1"]),
        (
            ["10.0.0.1", "10.9.0.0/16"],
            ["ip saddr { 10.0.0.1, 10.9.0.0/16 }"],
            ["ip saddr != { 10.0.0.1, 10.9.0.0/16 }", "meta nfproto ipv6"],
        ),
        (["0.0.0.0/0"], ["meta nfproto ipv4"], ["meta nfproto ipv6"]),
        (["0.0.0.0/0", "::/0"], ["meta nfproto ipv4", "meta nfproto ipv6"], []),
        ([], [], ["meta nfproto ipv4", "meta nfproto ipv6"]),
    ],
)
def test_addresses_inside_and_outside(
    given_networks: list[str], within: list[str], without: list[str]
) -> None:
    ours = networks(*given_networks)
    assert list(inside("saddr", ours, Sets())) == within
    assert list(outside("saddr", ours, Sets())) == without

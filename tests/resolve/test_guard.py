from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.policy.rules import Destination
from egressproxy.policy.verdict import Reason
from egressproxy.resolve.guard import (
    Choice,
    DestinationMatch,
    Guard,
    choose,
    choose_original,
    is_never_dialled,
)

Network: TypeAlias = IPv4Network | IPv6Network

OWN = ("20.9.9.9", "2600:1::9")
GUARD = Guard(OWN)
EVERYTHING: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))

NEVER = {
    "unspecified": "0.0.0.0",
    "this network": "0.255.255.255",
    "loopback": "127.0.0.1",
    "loopback, last": "127.255.255.255",
    "platform": "168.63.129.16",
    "instance metadata": "169.254.169.254",
    "link-local, first": "169.254.0.0",
    "multicast": "224.0.0.1",
    "multicast, last": "239.255.255.255",
    "broadcast": "255.255.255.255",
    "own": "20.9.9.9",
    "v6 unspecified": "::",
    "v6 loopback": "::1",
    "v6 link-local": "fe80::1",
    "v6 link-local, last": "febf:ffff::1",
    "v6 link-local with zone": "fe80::1%eth0",
    "v6 multicast": "ff02::1",
    "v6 own": "2600:1::9",
    "v6 own, written long": "2600:1:0:0:0:0:0:9",
    "mapped loopback": "::ffff:127.0.0.1",
    "mapped metadata in hex": "::ffff:a9fe:a9fe",
    "mapped platform": "::ffff:168.63.129.16",
    "mapped own": "::ffff:20.9.9.9",
    "compatible loopback": "::127.0.0.1",
    "translated loopback": "::ffff:0:127.0.0.1",
    "nat64 metadata": "64:ff9b::169.254.169.254",
    "nat64 platform": "64:ff9b::a83f:8110",
    "nat64 own": "64:ff9b::20.9.9.9",
    "local nat64 /96 loopback": "64:ff9b:1::127.0.0.1",
    "local nat64 /96 in a subnet": "64:ff9b:1:abcd::169.254.169.254",
    "local nat64 /48 metadata": "64:ff9b:1:a9fe:a9:fe00::",
    "local nat64 /56 metadata": "64:ff9b:1:11a9:fe:a9fe::",
    "local nat64 /64 metadata": "64:ff9b:1:1111:a9:fea9:fe00:0",
    "6to4 loopback": "2002:7f00:1::1",
    "6to4 platform": "2002:a83f:8110::1",
    "teredo client loopback": "2001:0:1408:808:0:0:80ff:fffe",
    "teredo server metadata": "2001:0:a9fe:a9fe::f7f7:f7f7",
    "isatap loopback": "2600::5efe:127.0.0.1",
    "isatap, universal, metadata": "2600::200:5efe:169.254.169.254",
    "no address": "mcr.microsoft.com",
    "empty": "",
    "octal": "0177.0.0.1",
    "short": "127.1",
    "integer": "2130706433",
    "with port": "20.1.2.3:443",
    "not ASCII": "\uff12\uff10.1.2.3",
}

PRIVATE = {
    "10/8": "10.0.0.1",
    "10/8, last": "10.255.255.255",
    "carrier-grade NAT": "100.64.0.1",
    "carrier-grade NAT, last": "100.127.255.255",
    "172.16/12": "172.16.0.1",
    "172.16/12, last": "172.31.255.255",
    "protocol assignments": "192.0.0.8",
    "test-net-1": "192.0.2.1",
    "6to4 relays": "192.88.99.1",
    "192.168/16": "192.168.255.255",
    "benchmarking": "198.18.0.1",
    "benchmarking, last": "198.19.255.255",
    "test-net-2": "198.51.100.1",
    "test-net-3": "203.0.113.1",
    "reserved": "240.0.0.1",
    "reserved, last": "255.255.255.254",
    "unique local": "fd00::1",
    "unique local, unassigned half": "fc00::1",
    "site-local": "fec0::1",
    "v6 documentation": "2001:db8::1",
    "v6 documentation, new": "3fff::1",
    "v6 benchmarking": "2001:2::1",
    "orchid": "2001:20::1",
    "teredo": "2001:0:1408:808:0:0:f7f7:f7f7",
    "v6 discard": "100::1",
    "segment routing": "5f00::1",
    "not yet given out": "4000::1",
    "compatible": "::20.1.2.3",
    "mapped private": "::ffff:10.0.0.1",
    "nat64 private": "64:ff9b::10.0.0.1",
    "local nat64": "64:ff9b:1::20.1.2.3",
    "6to4 private": "2002:a00:1::1",
    "isatap private": "2600::5efe:10.0.0.1",
}

PUBLIC = {
    "v4": "20.1.2.3",
    "just before 10/8": "9.255.255.255",
    "just after 10/8": "11.0.0.0",
    "just before carrier-grade NAT": "100.63.255.255",
    "just after carrier-grade NAT": "100.128.0.0",
    "just after 172.16/12": "172.32.0.0",
    "just after loopback": "128.0.0.0",
    "beside the platform": "168.63.129.15",
    "beside the platform, after": "168.63.129.17",
    "just before multicast": "223.255.255.255",
    "v6": "2603:1030::1",
    "last global v6": "3ffe:ffff::1",
    "mapped": "::ffff:20.1.2.3",
    "nat64": "64:ff9b::20.1.2.3",
    "6to4": "2002:1401:203::1",
    "isatap": "2600::5efe:20.1.2.3",
}


@pytest.mark.parametrize("address", NEVER.values(), ids=NEVER)
def test_never(address: str) -> None:
    assert GUARD.refuses(address)
    assert GUARD.refuses(address, EVERYTHING), "no list opens it"
    assert GUARD.never_dials(address)


@pytest.mark.parametrize("address", PRIVATE.values(), ids=PRIVATE)
def test_only_where_listed(address: str) -> None:
    assert GUARD.refuses(address)
    assert GUARD.refuses(address, (ip_network("20.0.0.0/8"), ip_network("2603::/16")))
    assert not GUARD.refuses(address, EVERYTHING)
    assert not GUARD.never_dials(address)


@pytest.mark.parametrize("address", PUBLIC.values(), ids=PUBLIC)
def test_public(address: str) -> None:
    assert not GUARD.refuses(address)
    assert not GUARD.refuses(address, (ip_network("10.0.0.0/8"),))


def test_a_list_opens_what_it_names_and_nothing_beside() -> None:
    allowed = (ip_network("10.50.0.0/24"),)
    assert not GUARD.refuses("10.50.0.7", allowed)
    assert not GUARD.refuses("::ffff:10.50.0.7", allowed)
    assert not GUARD.refuses("64:ff9b::10.50.0.7", allowed)
    assert GUARD.refuses("10.50.1.7", allowed)
    assert GUARD.refuses("10.50.0.7"), "another rule's list is not remembered"


NEVER_DIALLED = {
    "loopback": ("127.0.0.1", True),
    "platform": ("168.63.129.16", True),
    "instance metadata": ("169.254.169.254", True),
    "multicast": ("224.0.0.1", True),
    "unspecified": ("::", True),
    "v6 link-local with zone": ("fe80::1%eth0", True),
    "mapped loopback": ("::ffff:127.0.0.1", True),
    "nat64 instance metadata": ("64:ff9b::169.254.169.254", True),
    "public": ("20.1.2.3", False),
    "private": ("10.0.0.1", False),
    "nat64 private": ("64:ff9b::10.0.0.1", False),
    "v6 public": ("2600:1::1", False),
    "v6 unique local": ("fd00::1", False),
    "a gateway's own, perhaps": ("20.9.9.9", False),
}


@pytest.mark.parametrize(("address", "expected"), NEVER_DIALLED.values(), ids=NEVER_DIALLED.keys())
def test_what_no_policy_can_open_is_known_without_a_gateway(address: str, expected: bool) -> None:
    assert is_never_dialled(address) is expected
    assert not expected or Guard().refuses(address, EVERYTHING)


def test_own_addresses_are_known_in_every_spelling() -> None:
    for text in ("20.9.9.9", "::ffff:20.9.9.9", "64:ff9b::20.9.9.9", "2600:1:0::9"):
        assert GUARD.is_own(text)
    assert not GUARD.is_own("20.9.9.8")
    assert not GUARD.is_own("nonsense")


def test_a_lab_may_dial_loopback_and_nothing_else() -> None:
    lab = Guard((), exempt=(ip_network("127.0.0.0/8"),))
    assert not lab.refuses("127.0.0.1")
    assert not lab.refuses("::ffff:127.0.0.1")
    assert lab.refuses("169.254.169.254")
    assert lab.refuses("::1")


def test_the_memo_is_bounded() -> None:
    guard = Guard()
    for number in range(20_000):
        guard.refuses(str(IPv4Address(number << 8)))
    assert len(guard._memo) <= 8192


OURS_ONLY_V4 = [ip_network(n) for n in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24")]


@given(st.ip_addresses(v=4))
def test_ipv4_agrees_with_the_standard_library(address: IPv4Address) -> None:
    if any(address in network for network in OURS_ONLY_V4):
        expected = True
    else:
        expected = not address.is_global or address.is_multicast
    assert Guard().refuses(str(address)) is expected


CARRIERS_V6 = [
    ip_network(n)
    for n in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::ffff:0:0/96", "2001::/23")
]


@given(
    st.one_of(
        st.ip_addresses(v=6),
        st.ip_addresses(network="2000::/3"),
        st.ip_addresses(network="2001::/16"),
        st.ip_addresses(network="fc00::/6"),
    )
)
def test_ipv6_agrees_with_the_standard_library(address: IPv6Address) -> None:
    if any(address in network for network in CARRIERS_V6):
        return  # judged by what they carry, which the standard library does not
    if address not in ip_network("2000::/3") or address in ip_network("3fff::/20"):
        assert Guard().refuses(str(address))
    else:
        assert Guard().refuses(str(address)) is not address.is_global


@given(st.ip_addresses(v=4), st.sampled_from([EVERYTHING, (), (ip_network("10.0.0.0/8"),)]))
def test_an_address_does_not_become_dialable_by_being_carried(
    inner: IPv4Address, allowed: tuple[Network, ...]
) -> None:
    number = int(inner)
    carriers = [
        0xFFFF << 32 | number,
        0x64FF9B << 96 | number,
        0x64FF9B0001 << 80 | number,
        0x2002 << 112 | number << 80 | 1,
        0x2001_0000_1408_0808 << 64 | (number ^ 0xFFFFFFFF),
        0x2600 << 112 | 0x5EFE << 32 | number,
    ]
    if GUARD.refuses(str(inner), allowed):
        for carrier in carriers:
            assert GUARD.refuses(str(IPv6Address(carrier)), allowed)


@given(st.text(max_size=50))
def test_any_text_has_a_judgement(text: str) -> None:
    assert Guard().refuses(text) in (True, False)


A, B, PRIV = "20.1.1.1", "20.1.1.2", "10.0.0.1"
YES, NO, UNKNOWN = DestinationMatch.YES, DestinationMatch.NO, DestinationMatch.UNKNOWN
RESOLVE, PREFER, STRICT = (
    Destination.RESOLVE,
    Destination.PREFER_ORIGINAL,
    Destination.STRICT,
)

CHOICES = {
    # addresses, original, mode -> candidates, match, reason
    "resolve: the original counts for nothing": ((A, B), "9.9.9.9", RESOLVE, (A, B), NO, None),
    "resolve: recorded where it matches": ((A, B), B, RESOLVE, (A, B), YES, None),
    "resolve: no original": ((A,), None, RESOLVE, (A,), UNKNOWN, None),
    "resolve: forbidden ones are left out": ((PRIV, A), A, RESOLVE, (A,), YES, None),
    "resolve: all forbidden": ((PRIV,), A, RESOLVE, (), NO, Reason.FORBIDDEN_ADDRESS),
    "resolve: none": ((), A, RESOLVE, (), UNKNOWN, Reason.RESOLVE_FAILED),
    "prefer: dialled first": ((A, B), B, PREFER, (B, A), YES, None),
    "prefer: not one of them": ((A, B), "9.9.9.9", PREFER, (A, B), NO, None),
    "prefer: forbidden, the others stay": ((A, PRIV), PRIV, PREFER, (A,), YES, None),
    "prefer: no original": ((A, B), None, PREFER, (A, B), UNKNOWN, None),
    "strict: the only one dialled": ((A, B), B, STRICT, (B,), YES, None),
    "strict: mismatch": ((A, B), "9.9.9.9", STRICT, (), NO, Reason.DESTINATION_MISMATCH),
    "strict: forbidden": ((A, PRIV), PRIV, STRICT, (), YES, Reason.FORBIDDEN_ADDRESS),
    "strict: no original to hold to": ((A, B), None, STRICT, (A, B), UNKNOWN, None),
    "strict: none": ((), A, STRICT, (), UNKNOWN, Reason.RESOLVE_FAILED),
}  # fmt: skip


@pytest.mark.parametrize(
    ("addresses", "original", "mode", "candidates", "match", "reason"),
    CHOICES.values(),
    ids=CHOICES,
)
def test_choose(
    addresses: tuple[str, ...],
    original: str | None,
    mode: Destination,
    candidates: tuple[str, ...],
    match: DestinationMatch,
    reason: Reason | None,
) -> None:
    chosen = choose(addresses, original, mode, guard=GUARD)
    assert chosen == Choice(candidates, match, reason)


def test_choose_with_a_listed_private_network() -> None:
    allowed = (ip_network("10.0.0.0/8"),)
    chosen = choose((PRIV,), None, RESOLVE, guard=GUARD, allowed=allowed)
    assert chosen == Choice((PRIV,), UNKNOWN)


def test_a_flow_without_a_name_goes_where_it_wanted_or_nowhere() -> None:
    assert choose_original(A, guard=GUARD) == Choice((A,), UNKNOWN)
    refused = Choice((), UNKNOWN, Reason.FORBIDDEN_ADDRESS)
    assert choose_original(PRIV, guard=GUARD) == refused
    assert choose_original(PRIV, guard=GUARD, allowed=(ip_network("10.0.0.0/8"),)).reason is None
    assert choose_original("169.254.169.254", guard=GUARD, allowed=EVERYTHING) == refused


@given(
    st.lists(st.sampled_from([A, B, PRIV, "127.0.0.1", "2603::1"]), max_size=5, unique=True),
    st.sampled_from([None, A, PRIV, "127.0.0.1", "9.9.9.9"]),
    st.sampled_from(Destination),
)
def test_what_is_chosen_is_the_name_s_and_permitted(
    addresses: list[str], original: str | None, mode: Destination
) -> None:
    chosen = choose(tuple(addresses), original, mode, guard=GUARD)
    assert set(chosen.candidates) <= set(addresses)
    assert not any(GUARD.refuses(address) for address in chosen.candidates)
    assert bool(chosen.candidates) == (chosen.reason is None)

"""Sets of addresses against ``ipaddress`` and plain sets."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.policy.spans import AddressSet

if TYPE_CHECKING:
    from egressproxy.policy.networks import Network

EVERYTHING_4, EVERYTHING_6 = "0.0.0.0/0", "::/0"


def shown(addresses: AddressSet) -> list[str]:
    return [str(network) for network in addresses.networks()]


@st.composite
def small_ranges(draw: st.DrawFn) -> list[str]:
    """Ranges inside 20.0.0.0/26 and 2603::/122, so that they meet."""
    texts = []
    for _ in range(draw(st.integers(0, 12))):
        size = draw(st.integers(0, 6))
        offset = draw(st.integers(0, 63)) >> size << size
        if draw(st.booleans()):
            texts.append(f"20.0.0.{offset}/{32 - size}")
        else:
            texts.append(f"2603::{offset:x}/{128 - size}")
    return texts


def members(texts: list[str]) -> set[object]:
    return {address for text in texts for address in ip_network(text)}


@given(small_ranges())
def test_collapsed_as_the_standard_library_does(texts: list[str]) -> None:
    networks = [ip_network(text) for text in texts]
    four = [network for network in networks if isinstance(network, IPv4Network)]
    six = [network for network in networks if isinstance(network, IPv6Network)]
    expected: list[Network] = [*collapse_addresses(four), *collapse_addresses(six)]
    assert list(AddressSet.of(texts).networks()) == expected
    assert AddressSet.of(texts) == AddressSet.of_networks(networks)


@given(small_ranges(), small_ranges())
def test_a_set_of_addresses(left: list[str], right: list[str]) -> None:
    ours, theirs = AddressSet.of(left), AddressSet.of(right)
    for made, expected in (
        (ours | theirs, members(left) | members(right)),
        (ours - theirs, members(left) - members(right)),
        (ours & theirs, members(left) & members(right)),
    ):
        assert members(shown(made)) == expected
        assert made.ipv4_addresses + made.ipv6_addresses == len(expected)
        assert bool(made) is bool(expected)
        assert made == AddressSet.of(shown(made)), "one form for one set"
    assert (ours <= theirs) is (members(left) <= members(right))
    assert (ours & theirs) <= theirs <= (ours | theirs)


def test_the_ends_of_both_worlds() -> None:
    everything = AddressSet.of([EVERYTHING_4, EVERYTHING_6])
    assert shown(everything) == [EVERYTHING_4, EVERYTHING_6]
    assert (everything.ipv4_addresses, everything.ipv6_addresses) == (2**32, 2**128)
    last = AddressSet.of(["255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"])
    assert shown(everything - (everything - last)) == shown(last)
    assert shown(AddressSet.of(["0.0.0.0", "128.0.0.0/1", "0.0.0.1"]))[:2] == [
        "0.0.0.0/31",
        "128.0.0.0/1",
    ]


def test_a_host_needs_no_length() -> None:
    assert AddressSet.of(["20.0.0.1", "::1"]) == AddressSet.of(["20.0.0.1/32", "::1/128"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "20.0.0.1/8",
        "20.0.0.0/",
        "20.0.0.0/33",
        "20.0.0.0/-1",
        "20.0.0.0/+8",
        "20.0.0.0/8/8",
        "20.0.0.0/ 8",
        "20.0.0.0/255.0.0.0",
        "20.0.0.0/٨",
        "20.0.0.0/" + "9" * 5000,
        "20.0.0",
        "020.0.0.0/8",
        "20.0.0.0\0/8",
        "2603::/129",
        "2603::1/64",
        "fe80::%eth0/64",
        "::ffff:20.0.0.0/104x",
        "name",
        "\ud800",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        AddressSet.of([text])


@given(st.text(max_size=30))
def test_any_text_is_a_range_or_refused(text: str) -> None:
    try:
        addresses = AddressSet.of([text])
    except ValueError:
        return
    assert members_count(addresses) == ip_network(text).num_addresses


def members_count(addresses: AddressSet) -> int:
    return addresses.ipv4_addresses + addresses.ipv6_addresses


def test_membership_of_an_address() -> None:
    inside = AddressSet.of(["20.0.0.0/8"]) & AddressSet.of(["20.1.2.3"])
    assert shown(inside) == ["20.1.2.3/32"]
    assert ip_address("20.1.2.3") in inside.networks()[0]


WITHIN = {
    "itself": ("10.0.0.0/8", "10.0.0.0/8", True),
    "a part": ("10.0.0.0/8", "10.1.0.0/16 10.255.255.255/32", True),
    "the first and last": ("10.0.0.0/8", "10.0.0.0/32 10.255.255.255/32", True),
    "one beyond": ("10.0.0.0/8", "10.1.0.0/16 11.0.0.0/32", False),
    "one before": ("10.0.0.0/8", "9.255.255.255/32", False),
    "two halves": ("10.0.0.0/9 10.128.0.0/9", "10.0.0.0/8", True),
    "two halves with a hole": ("10.0.0.0/9 10.128.0.0/10", "10.0.0.0/8", False),
    "other version": ("0.0.0.0/0", "::/0", False),
    "the other way": ("::/0", "0.0.0.0/0", False),
    "both versions": ("0.0.0.0/0 ::/0", "10.0.0.0/8 2001:db8::/32", True),
    "last of IPv4, first of IPv6": ("255.255.255.255/32 ::/128", "::1/128", False),
    "nothing": ("10.0.0.0/8", "", True),
    "in nothing": ("", "10.0.0.0/8", False),
}


@pytest.mark.parametrize(("outer", "inner", "expected"), WITHIN.values(), ids=WITHIN)
def test_within(outer: str, inner: str, expected: bool) -> None:
    whole, part = (AddressSet.of(texts.split()) for texts in (outer, inner))
    assert (part <= whole) is expected

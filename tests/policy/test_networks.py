"""Ranges: intersecting agrees with asking address by address."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import AddressError
from egressproxy.policy.networks import Network, in_order, intersect, parse_network

BASE = int(ip_address("10.0.0.0"))
NETWORKS = st.lists(
    st.builds(
        lambda host, length: ip_network((BASE + host, length), strict=False),
        st.integers(0, 255),
        st.integers(22, 32),
    ),
    max_size=6,
)


@given(NETWORKS, NETWORKS)
def test_intersection_has_the_addresses_of_both(left: list[Network], right: list[Network]) -> None:
    common = intersect(left, right)
    for host in range(-64, 320):
        address = ip_address(BASE + host)
        in_both = any(address in one for one in left) and any(address in one for one in right)
        assert any(address in one for one in common) is in_both
    assert common == in_order(common)
    assert all(one != other for one, other in pairwise(common))


def test_versions_do_not_mix() -> None:
    left = [ip_network("0.0.0.0/0"), ip_network("2001:db8::/32")]
    right = [ip_network("::/0"), ip_network("10.0.0.0/8")]
    assert intersect(left, right) == (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


def test_a_zone_means_nothing_to_a_gateway() -> None:
    with pytest.raises(AddressError) as caught:
        parse_network("fe80::1%eth0")
    assert caught.value.hint == "write fe80::1"

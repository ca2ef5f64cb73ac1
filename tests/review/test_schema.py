from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.review.schema import (
    address_key,
    day_of,
    hour_of,
    key_span,
    packed_texts,
    storable,
    storable_or_none,
    unpacked_texts,
)


@given(st.lists(st.ip_addresses().map(str), max_size=20), st.sampled_from([
    "10.0.0.0/8", "0.0.0.0/0", "10.240.0.4/32", "::/0", "fd00::/8", "::ffff:0:0/96"
]))  # fmt: skip
def test_a_range_of_addresses_is_a_range_of_keys(addresses: list[str], text: str) -> None:
    network = ip_network(text)
    first, last = key_span(network)
    for each in addresses:
        key = address_key(each)
        assert key is not None
        address = ip_address(each)
        if address.version == network.version:
            assert (first <= key <= last) == (address in network)
        elif network.version == 4:
            assert not first <= key <= last or getattr(address, "ipv4_mapped", None)


@pytest.mark.parametrize("text", ["", "nonsense", "10.0.0.1/8", "1" * 100, "\0"])
def test_what_is_no_address_has_no_key(text: str) -> None:
    assert address_key(text) is None


def test_the_zone_of_an_address_is_no_part_of_it() -> None:
    assert address_key("fe80::1%eth0") == address_key("fe80::1")


@given(st.text())
def test_storable_texts(text: str) -> None:
    kept = storable(text)
    assert "\0" not in kept
    kept.encode()
    assert storable(kept) == kept
    assert len(kept) == len(text)
    assert storable_or_none(text) == kept
    assert storable_or_none(None) is None


@given(st.lists(st.text()))
def test_packed_texts_come_back(texts: list[str]) -> None:
    packed = packed_texts(tuple(texts))
    assert unpacked_texts(packed) == tuple(storable(each) for each in texts)
    assert "\0" not in packed
    assert packed.isascii()


def test_buckets_begin_at_whole_hours_and_days_of_utc() -> None:
    assert hour_of(1_790_000_000.9) == 1_789_999_200
    assert day_of(1_790_000_000.9) == 1_789_948_800
    assert hour_of(3600.0) == 3600
    assert day_of(86_399.999) == 0

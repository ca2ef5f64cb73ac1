from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.policy.lint_ranges import holds, is_everywhere, spans
from egressproxy.policy.networks import Network
from tests.policy.building import networks

HOLDS = {
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


@pytest.mark.parametrize(("outer", "inner", "expected"), HOLDS.values(), ids=HOLDS)
def test_holds(outer: str, inner: str, expected: bool) -> None:
    assert holds(spans(networks(*outer.split())), spans(networks(*inner.split()))) is expected


NETWORKS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 15), st.integers(28, 32)).map(
            lambda pair: IPv4Network((0x0A000000 + pair[0], pair[1]), strict=False)
        ),
        st.tuples(st.integers(0, 15), st.integers(124, 128)).map(
            lambda pair: IPv6Network((0x0A000000 + pair[0], pair[1]), strict=False)
        ),
    ),
    max_size=5,
)
ADDRESSES = [
    *(ip_address(0x0A000000 + i) for i in range(16)),
    *(ip_address(f"::a00:{i:x}") for i in range(16)),
]


@given(NETWORKS, NETWORKS)
def test_holds_is_what_every_address_says(outer: list[Network], inner: list[Network]) -> None:
    plain = all(
        any(address in net for net in outer)
        for address in ADDRESSES
        if any(address in net for net in inner)
    )
    assert holds(spans(outer), spans(inner)) is plain


EVERYWHERE = {
    "all": ("0.0.0.0/0", True),
    "all, both versions": ("0.0.0.0/0 ::/0", True),
    "in halves": ("0.0.0.0/1 128.0.0.0/1", True),
    "all that is public": (
        "0.0.0.0/5 8.0.0.0/7 11.0.0.0/8 12.0.0.0/6 16.0.0.0/4 32.0.0.0/3 64.0.0.0/3 96.0.0.0/4"
        " 112.0.0.0/5 120.0.0.0/6 124.0.0.0/7 126.0.0.0/8 128.0.0.0/2 192.0.0.0/3",
        True,
    ),
    "all but one": ("0.0.0.0/1 128.0.0.0/2 192.0.0.0/4 208.0.0.0/5 216.0.0.0/6 220.0.0.0/8", False),
    "half": ("0.0.0.0/1", False),
    "IPv6 alone": ("::/0", False),
    "private alone": ("10.0.0.0/8", False),
    "nothing": ("", False),
}


@pytest.mark.parametrize(("text", "expected"), EVERYWHERE.values(), ids=EVERYWHERE)
def test_is_everywhere(text: str, expected: bool) -> None:
    assert is_everywhere(networks(*text.split())) is expected

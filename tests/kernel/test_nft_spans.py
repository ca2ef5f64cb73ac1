from __future__ import annotations

from ipaddress import IPv4Network, collapse_addresses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.kernel.nft_spans import listed_spans, spans_of
from tests.policy.building import networks

TEN = 10 << 24
FORMS: dict[str, tuple[Any, tuple[tuple[int, int], ...]]] = {
    "an address": (["10.0.0.1"], ((TEN + 1, TEN + 1),)),
    "a prefix": ([{"prefix": {"addr": "10.0.0.0", "len": 8}}], ((TEN, TEN + (1 << 24) - 1),)),
    "a range": ([{"range": ["10.0.0.1", "10.0.0.6"]}], ((TEN + 1, TEN + 6),)),
    "with a comment": ([{"elem": {"val": "10.0.0.1", "comment": "x"}}], ((TEN + 1, TEN + 1),)),
    "out of order": (["10.0.0.9", "10.0.0.1"], ((TEN + 1, TEN + 1), (TEN + 9, TEN + 9))),
    "that touch": (["10.0.0.1", {"range": ["10.0.0.2", "10.0.0.6"]}], ((TEN + 1, TEN + 6),)),
    "none": ([], ()),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_an_element(form: str) -> None:
    elements, spans = FORMS[form]
    assert listed_spans("ipv4_addr", elements) == spans


@pytest.mark.parametrize(
    "element",
    [
        7,
        None,
        "2001:db8::1",
        "10.0.0.256",
        {"concat": ["10.0.0.1", 7]},
        {"range": ["10.0.0.1"]},
        {"prefix": {"addr": "10.0.0.0", "len": "8"}},
        {"prefix": {"addr": "10.0.0.0", "len": 33}},
        {"elem": "10.0.0.1"},
    ],
)
def test_another_form_is_not_guessed_at(element: Any) -> None:
    assert listed_spans("ipv4_addr", ["10.0.0.1", element]) is None


def test_what_is_no_set_of_addresses_is_not_read() -> None:
    assert listed_spans("inet_service", ["10.0.0.1"]) is None


def test_the_edges_of_ipv6() -> None:
    both = networks("::/1", "8000::/1")
    assert spans_of(both) == ((0, (1 << 128) - 1),)
    listed = [{"prefix": {"addr": "ff00::", "len": 8}}, "::ffff:1.2.3.4"]
    assert listed_spans("ipv6_addr", listed) == spans_of(networks("ff00::/8", "::ffff:102:304"))


@given(st.lists(st.tuples(st.integers(0, (1 << 32) - 1), st.integers(1, 32)), max_size=12))
def test_a_list_of_networks_is_the_same_written_by_nft_and_by_us(
    made: list[tuple[int, int]],
) -> None:
    found = [IPv4Network((address, length), strict=False) for address, length in made]
    collapsed = list(collapse_addresses(found))
    listed = [
        {"prefix": {"addr": str(each.network_address), "len": each.prefixlen}} for each in collapsed
    ]
    assert listed_spans("ipv4_addr", reversed(listed)) == spans_of(found) == spans_of(collapsed)

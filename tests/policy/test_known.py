"""Known names: packed, found, compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.policy.known import Known, known_of

names = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=250)


@given(st.lists(names, max_size=30), st.lists(names, max_size=10))
def test_what_was_packed_is_known_and_nothing_else(packed: list[str], others: list[str]) -> None:
    known = known_of(packed)
    assert all(known.has(name) for name in packed)
    assert [known.has(name) for name in others] == [name in packed for name in others]


@given(st.lists(names, max_size=10))
def test_the_digest_is_of_the_content(packed: list[str]) -> None:
    digest = known_of(packed, ["10.0.0.1"]).digest
    assert known_of([*reversed(packed), *packed], ["10.0.0.1", "10.0.0.1"]).digest == digest
    assert known_of([*packed, "more." * 51], ["10.0.0.1"]).digest != digest
    assert known_of(packed).digest != digest


def test_nobody_is_crowded_unless_told() -> None:
    assert not known_of(["a.test"]).is_crowded("10.0.0.1")


CROWDED = known_of((), ["10.1.2.3", "10.9.0.0", "fd00::5", "fd00:1::"])
CLIENTS = {
    "itself": ("10.1.2.3", True),
    "its neighbour": ("10.1.2.4", False),
    "of a network": ("10.9.200.7", True),
    "of the next network": ("10.10.0.1", False),
    "IPv6 itself": ("fd00::5", True),
    "IPv6 neighbour": ("fd00::6", False),
    "of an IPv6 network": ("fd00:1::dead:beef", True),
    "of the next IPv6 network": ("fd00:1:0:1::1", False),
    "no address": ("bogus", False),
    "nobody": ("", False),
}


@pytest.mark.parametrize("case", CLIENTS)
def test_crowded_clients(case: str) -> None:
    src, expected = CLIENTS[case]
    assert CROWDED.is_crowded(src) is expected


def test_the_buffer_makes_it_again() -> None:
    known = known_of(["a.test", "b.test"])
    again = Known(known.buffer, known.layout, known.crowded, known.digest)
    assert again.has("b.test")
    assert not again.has("c.test")

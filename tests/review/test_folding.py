"""Names alike below one suffix are one line; names of different people are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.review.folding import MIN_FOLDED, fold

MANY = [f"n{number}" for number in range(MIN_FOLDED)]

CASES: dict[str, tuple[list[str], list[str]]] = {
    "many below one suffix": ([f"{n}.vendor.example" for n in MANY], ["*.vendor.example"]),
    "one less": (
        [f"{n}.vendor.example" for n in MANY[1:]],
        [f"{n}.vendor.example" for n in MANY[1:]],
    ),
    "below a public suffix": (
        [f"{n}.blob.core.windows.net" for n in MANY],
        [f"{n}.blob.core.windows.net" for n in MANY],
    ),
    "below a country": ([f"{n}.co.uk" for n in MANY], [f"{n}.co.uk" for n in MANY]),
    "of two labels": ([f"{n}.example" for n in MANY], [f"{n}.example" for n in MANY]),
    "addresses": (
        [f"192.0.2.{n}" for n in range(9)] + ["2001:db8::1"],
        [f"192.0.2.{n}" for n in range(9)] + ["2001:db8::1"],
    ),
    "no names": (["(no name)", "(more names)"], ["(no name)", "(more names)"]),
    "of every depth their own": (
        [f"{n}.a.vendor.example" for n in MANY] + [f"{n}.vendor.example" for n in MANY],
        ["*.a.vendor.example", "*.vendor.example"],
    ),
}


@pytest.mark.parametrize(("names", "keys"), CASES.values(), ids=CASES)
def test_folds(names: list[str], keys: list[str]) -> None:
    assert [key for key, _ in fold(names, str, lambda _: None)] == keys


def test_what_is_not_alike_stays_apart() -> None:
    names = [f"{n}.vendor.example" for n in MANY] + [f"x{n}.vendor.example" for n in MANY]
    folded = fold(names, str, lambda name: name.startswith("x"))
    assert [(key, len(family)) for key, family in folded] == [("*.vendor.example", MIN_FOLDED)] * 2


@given(
    st.lists(
        st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4).map(".".join), unique=True
    ),
    st.integers(1, 3),
)
def test_no_line_is_lost_or_doubled(names: list[str], kinds: int) -> None:
    folded = fold(names, str, lambda name: len(name) % kinds)
    assert sorted(name for _, family in folded for name in family) == sorted(names)

from math import comb

import pytest

from bench.ratio import paired_difference, paired_ratio

SIGN_TEST = {5: 0, 6: 0, 8: 0, 9: 1, 11: 1, 12: 2, 14: 2, 15: 3, 16: 3, 17: 4, 19: 4, 20: 5, 25: 7}
"""Pairs to the largest k with P(X <= k) <= 0.025 for X ~ B(pairs, 1/2): the two-sided 5 % table."""


@pytest.mark.parametrize(("pairs", "dropped"), SIGN_TEST.items())
def test_the_interval_is_that_of_the_sign_test(pairs: int, dropped: int) -> None:
    values = [float(n) for n in range(1, pairs + 1)]
    ratio = paired_ratio(values, [1.0] * pairs)
    assert (ratio.low, ratio.high) == (1 + dropped, pairs - dropped)


@pytest.mark.parametrize("pairs", range(6, 40))
def test_it_covers_95_per_cent_and_one_narrower_would_not(pairs: int) -> None:
    ratio = paired_ratio([float(n) for n in range(pairs)], [1.0] * pairs)
    dropped = round(ratio.low)
    assert coverage(pairs, dropped) >= 0.95 > coverage(pairs, dropped + 1)


def coverage(pairs: int, dropped: int) -> float:
    return 1 - 2 * sum(comb(pairs, k) for k in range(dropped + 1)) / (1 << pairs)


def test_a_ratio_is_of_pairs_not_of_medians() -> None:
    # The machine became ten times slower on the way: no pair says anything but two.
    ratio = paired_ratio([2, 20, 6], [1, 10, 3])
    assert str(ratio) == "2.00 (2.00-2.00, n=3)"


def test_a_difference_keeps_its_sign() -> None:
    difference = paired_difference([150, 90, 1200], [100, 100, 100])
    assert str(difference) == "+50 (-10 to +1,100, n=3)"


def test_what_is_not_paired_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0, 2.0], [1.0])

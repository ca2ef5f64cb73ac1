import math

import pytest

from bench.soak.trend import block_means, student_t, trend

STUDENT = [(2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (120, 1.980)]
"""Abramowitz and Stegun, table 26.10."""


@pytest.mark.parametrize(("freedom", "point"), STUDENT)
def test_students_t(freedom: int, point: float) -> None:
    assert student_t(freedom) == pytest.approx(point, rel=0.01)


def test_a_line_without_noise_is_found_without_doubt() -> None:
    found = trend([(5.0 * n, 100 + n) for n in range(120)], block_s=60)
    assert found.slope == pytest.approx(720)
    assert found.low == pytest.approx(720)
    assert found.high == pytest.approx(720)
    assert found.blocks == 10


def test_what_does_not_grow_has_no_slope() -> None:
    found = trend([(5.0 * n, 7.0) for n in range(120)], block_s=60)
    assert (found.slope, found.low, found.high) == (0, 0, 0)


def test_the_interval_is_that_of_a_textbook_regression() -> None:
    # x = 0..4, y = 1, 3, 2, 5, 4: slope 0.8, residuals 3.6, so s = sqrt(1.2 / 10), t(3) = 3.182.
    found = trend([(0.0, 1), (1.0, 3), (2.0, 2), (3.0, 5), (4.0, 4)], block_s=1)
    assert found.slope / 3600 == pytest.approx(0.8)
    assert (found.high - found.slope) / 3600 == pytest.approx(3.182 * math.sqrt(0.12), rel=0.01)
    assert found.slope - found.low == pytest.approx(found.high - found.slope)


def test_neighbours_that_say_the_same_make_no_certainty() -> None:
    steps = [(float(n), float(n // 60 % 2)) for n in range(600)]
    every, blocks = trend(steps, block_s=1), trend(steps, block_s=60)
    assert blocks.high - blocks.low > 5 * (every.high - every.low)


def test_of_too_few_blocks_nothing_is_said() -> None:
    found = trend([(0.0, 1), (60.0, 2), (120.0, 3)], block_s=60)
    assert math.isnan(found.slope)
    assert found.blocks == 3


def test_blocks_are_counted_from_the_first_sample() -> None:
    means = block_means([(100.0, 1), (105.0, 3), (110.0, 10)], block_s=10)
    assert means == [(102.5, 2), (110, 10)]

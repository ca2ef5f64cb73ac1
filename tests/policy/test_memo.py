from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from egressproxy.policy.memo import Memo


@given(st.lists(st.integers(0, 30)), st.integers(1, 8))
def test_bounded_and_never_wrong(keys: list[int], limit: int) -> None:
    memo: Memo[int, str] = Memo(limit)
    for key in keys:
        assert memo.get(key) in (None, str(key))
        assert memo.put(key, str(key)) == str(key)
        assert memo.get(key) == str(key)
        assert len(memo) <= 3 * limit


def test_what_is_asked_for_stays_through_a_flood() -> None:
    memo: Memo[int, str] = Memo(100)
    memo.put(-1, "kept")
    for number in range(10_000):
        memo.put(number, "flood")
        if number % 50 == 0:
            assert memo.get(-1) == "kept"
    assert memo.get(0) is None


def test_no_generation_is_freed_at_once() -> None:
    memo: Memo[int, str] = Memo(1000)
    sizes = []
    for number in range(10_000):
        memo.put(number, "")
        sizes.append(len(memo))
    assert max(before - after for before, after in pairwise(sizes)) <= 1

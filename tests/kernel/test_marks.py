from __future__ import annotations

from itertools import combinations
from typing import Final

import pytest

from egressproxy.kernel import marks
from egressproxy.service.options import DEFAULT_MARK

BITS: Final = {
    name: getattr(marks, name)
    for name in ("FORWARDED", "PROXIED", "JUDGED", "TPROXY", "OLD_ALLOWS")
}


@pytest.mark.parametrize("name", BITS)
def test_each_mark_is_one_bit_of_32(name: str) -> None:
    assert BITS[name].bit_count() == 1
    assert BITS[name] < 1 << 32


def test_no_two_marks_meet() -> None:
    assert not any(one & other for one, other in combinations([*BITS.values(), marks.UPSTREAM], 2))


def test_upstream_is_what_our_own_sockets_carry() -> None:
    assert marks.UPSTREAM == DEFAULT_MARK

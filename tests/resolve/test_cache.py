from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from egressproxy.names import DnsName
from egressproxy.resolve.cache import Answer, Cache, Failure

A, B, C = DnsName("a.test"), DnsName("b.test"), DnsName("c.test")
FOREVER = Answer(("198.51.100.7",), expires_at=math.inf)


def test_an_answer_is_gone_the_moment_it_expires() -> None:
    cache = Cache(10)
    cache.put(A, Answer(("198.51.100.7",), expires_at=5.0))
    assert cache.get(A, 4.999) is not None
    assert cache.get(A, 5.0) is None
    assert len(cache) == 0


def test_the_least_recently_used_gives_way() -> None:
    cache = Cache(2)
    cache.put(A, FOREVER)
    cache.put(B, FOREVER)
    cache.get(A, 0)
    cache.put(C, FOREVER)
    assert cache.get(B, 0) is None
    assert cache.get(A, 0) is cache.get(C, 0) is FOREVER


def test_a_new_answer_takes_the_place_of_the_old() -> None:
    cache = Cache(2)
    cache.put(A, FOREVER)
    cache.put(A, Answer(error=Failure.NXDOMAIN, expires_at=9))
    assert len(cache) == 1
    found = cache.get(A, 0)
    assert found is not None
    assert found.error is Failure.NXDOMAIN


def test_clear() -> None:
    cache = Cache(2)
    cache.put(A, FOREVER)
    cache.clear()
    assert cache.get(A, 0) is None


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 100)), max_size=200))
def test_it_never_holds_more_than_its_capacity(puts: list[tuple[int, float]]) -> None:
    cache = Cache(7)
    for number, expires_at in puts:
        cache.put(DnsName(f"n{number}.test"), Answer(expires_at=expires_at))
        assert len(cache) <= 7

"""How often something may happen."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.admin.rates import MAX_ADDRESSES, Rate, Rates


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


ONE, ALL = Rate(burst=3, per_s=0.5), Rate(burst=5, per_s=2)


def test_a_burst_then_a_pace() -> None:
    clock = Clock()
    rates = Rates(ONE, ALL, clock=clock)
    for _ in range(3):
        assert rates.wait_s("a") == 0.0
        rates.spend("a")
    assert rates.wait_s("a") == 2.0
    clock.now += 2
    assert rates.wait_s("a") == 0.0
    rates.spend("a")
    assert rates.wait_s("a") > 0


def test_asking_spends_nothing() -> None:
    rates = Rates(ONE, ALL, clock=Clock())
    assert {rates.wait_s("a") for _ in range(100)} == {0.0}


def test_one_does_not_lock_out_another_but_all_together_have_a_limit() -> None:
    clock = Clock()
    rates = Rates(ONE, ALL, clock=clock)
    for _ in range(3):
        rates.spend("a")
    assert rates.wait_s("a") > 0
    assert rates.wait_s("b") == 0.0
    rates.spend("b")
    rates.spend("c")
    assert rates.wait_s("d") == 0.5, "five of five are gone"
    clock.now += 0.5
    assert rates.wait_s("d") == 0.0


def test_addresses_are_bounded() -> None:
    rates = Rates(ONE, Rate(burst=1e9, per_s=1), clock=Clock())
    for _ in range(3):
        rates.spend("first")
    for number in range(MAX_ADDRESSES):
        rates.spend(f"other {number}")
    assert rates.wait_s("first") == 0.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3)), max_size=60))
def test_never_more_than_burst_and_pace(steps: list[tuple[str, float]]) -> None:
    clock = Clock()
    rates = Rates(ONE, ALL, clock=clock)
    let_pass: dict[str, int] = dict.fromkeys("abc", 0)
    for address, pause in steps:
        clock.now += pause
        if rates.wait_s(address) == 0.0:
            rates.spend(address)
            let_pass[address] += 1
    elapsed = clock.now - 1000.0
    assert all(count <= ONE.burst + elapsed * ONE.per_s + 1e-6 for count in let_pass.values())
    assert sum(let_pass.values()) <= ALL.burst + elapsed * ALL.per_s + 1e-6


def test_who_is_over_the_limit_uses_up_nothing_of_the_others() -> None:
    """Wrong tokens in headers come as fast as their sender likes: nobody else is kept out."""
    rates = Rates(ONE, ALL, clock=Clock())
    for _ in range(1000):
        rates.spend("a")
    assert rates.wait_s("b") == 0.0


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:10.1.0.4", "::ffff:10.1.0.5", False),
        ("10.1.0.4", "10.1.0.5", False),
        ("unix", "unix", True),
    ],
)
def test_a_client_is_what_has_one_ipv6_network(one: str, other: str, *, is_same: bool) -> None:
    """A host has as many addresses of its /64 as it likes (RFC 4291 section 2.5.4)."""
    rates = Rates(ONE, Rate(burst=1e9, per_s=1), clock=Clock())
    for _ in range(3):
        rates.spend(one)
    assert (rates.wait_s(other) > 0) is is_same

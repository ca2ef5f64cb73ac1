"""How often something may happen."""

from __future__ import annotations

from dataclasses import dataclass

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

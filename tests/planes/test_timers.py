from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from egressproxy.planes.timers import TimerQueue


def test_keys_expire_in_order_and_once() -> None:
    queue: TimerQueue[str] = TimerQueue(5)
    queue.arm("a", 0)
    queue.arm("b", 1)
    assert queue.expire(4.9) == []
    assert queue.expire(5) == ["a"]
    assert queue.expire(5.9) == []
    assert queue.expire(100) == ["b"]
    assert len(queue) == 0


def test_arming_again_waits_anew() -> None:
    queue: TimerQueue[str] = TimerQueue(5)
    queue.arm("a", 0)
    queue.arm("b", 1)
    queue.arm("a", 2)
    assert queue.expire(6) == ["b"]
    assert queue.expire(7) == ["a"]


def test_cancelled_keys_do_not_expire_and_may_be_cancelled_twice() -> None:
    queue: TimerQueue[str] = TimerQueue(5)
    queue.arm("a", 0)
    queue.cancel("a")
    queue.cancel("a")
    assert queue.expire(100) == []


@given(
    st.lists(
        st.tuples(st.sampled_from(["arm", "cancel", "expire"]), st.integers(0, 5), st.floats(0, 3)),
        max_size=60,
    )
)
def test_it_is_a_dict_of_deadlines(steps: list[tuple[str, int, float]]) -> None:
    queue: TimerQueue[int] = TimerQueue(4)
    deadlines: dict[int, float] = {}
    now = 0.0
    for step, key, passed in steps:
        now += passed
        if step == "arm":
            queue.arm(key, now)
            deadlines[key] = now + 4
        elif step == "cancel":
            queue.cancel(key)
            deadlines.pop(key, None)
        else:
            due = {k for k, deadline in deadlines.items() if deadline <= now}
            assert set(queue.expire(now)) == due
            deadlines = {k: d for k, d in deadlines.items() if k not in due}
    assert len(queue) == len(deadlines)

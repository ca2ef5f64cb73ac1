import pytest

from bench.over_cores import Rate, powers
from bench.scale import cores_table, one_core_table, unmeasured


@pytest.mark.parametrize(
    ("most", "counts"),
    [(1, (1,)), (2, (1, 2)), (4, (1, 2, 4)), (6, (1, 2, 4, 6))],
)
def test_numbers_of_cores_double_up_to_all(most: int, counts: tuple[int, ...]) -> None:
    assert powers(most) == counts


@pytest.mark.parametrize(
    ("two", "verdict"),
    [
        pytest.param([105.0] * 6, "1.05 (1.05-1.05, n=6) | met", id="met"),
        pytest.param(
            [105.0] * 5 + [111.0],
            "1.05 (1.05-1.11, n=6) | missed",
            id="missed by the interval's upper end",
        ),
        pytest.param([105.0] * 5, "1.05 (1.05-1.05, n=5) | too few pairs", id="too few"),
    ],
)
def test_the_goal_is_met_by_the_upper_end(two: list[float], verdict: str) -> None:
    text = one_core_table({1: [100.0] * len(two), 2: two, 3: [130.0] * len(two)})
    assert f"| {verdict} |" in text
    assert f"| 3 | 130 | 1.30 (1.30-1.30, n={len(two)}) |  |" in text


def test_without_one_worker_there_is_nothing_to_compare_with() -> None:
    assert "| 2 | 200 |  |  |" in one_core_table({2: [200.0]})


def test_the_command_for_a_larger_machine_is_told() -> None:
    assert "--cores 0-1 --load-cores 2-3" in unmeasured(2)
    assert "--cores 0-7 --load-cores 8-15" in unmeasured(16)


def test_over_cores_the_side_that_was_full_is_named() -> None:
    rates = {
        1: [Rate(4000, hub_busy=1, load_busy=0.4)] * 6,
        2: [Rate(7000, hub_busy=0.8, load_busy=0.97)] * 6,
    }
    lines = cores_table(rates).splitlines()
    assert lines[2] == "| 1 | 4,000 | 1.00 (1.00-1.00, n=6) | 1.00 | 100% | 40% | the hub |"
    assert lines[3] == "| 2 | 7,000 | 1.75 (1.75-1.75, n=6) | 0.88 | 80% | 97% | the load |"

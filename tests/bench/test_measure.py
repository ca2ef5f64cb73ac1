import pytest

from bench.measure import spread


@pytest.mark.parametrize(
    ("count", "most", "shares"),
    [
        pytest.param(2000, 15_000, [2000], id="one process is enough"),
        pytest.param(15_000, 15_000, [15_000], id="just enough"),
        pytest.param(20_000, 15_000, [10_000, 10_000], id="two, evenly"),
        pytest.param(20_000, 7000, [6666, 6667, 6667], id="three, and a remainder"),
    ],
)
def test_tunnels_are_spread_over_the_fewest_processes(
    count: int, most: int, shares: list[int]
) -> None:
    assert spread(count, most) == shares
    assert sum(shares) == count

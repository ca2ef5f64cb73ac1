import pytest

from bench.measure import Taken, spread, steadiest


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


@pytest.mark.parametrize(
    ("drifts", "chosen", "tries"),
    [
        pytest.param([0.01, 0.0], 0.01, 1, id="a steady one is enough"),
        pytest.param([0.3, 0.02, 0.0], 0.02, 2, id="the first steady one"),
        pytest.param([0.3, 0.2, 0.1, 0.4, 0.0], 0.1, 4, id="the best of four"),
        pytest.param([0.07], 0.07, 1, id="just steady"),
    ],
)
def test_a_measurement_is_taken_again_where_the_machine_drifts(
    drifts: list[float], chosen: float, tries: int
) -> None:
    left = [Taken(drift, drift * 10, {"done": 1.0}) for drift in drifts]
    assert steadiest(lambda: left.pop(0)) == Taken(chosen, chosen * 10, {"done": 1.0})
    assert len(drifts) - len(left) == tries

import pytest

from bench.cores import Ticks, busy, cpu_mask, parse_cores, read_ticks

STAT = """\
cpu  30 0 20 150 0 0 0 0 0 0
cpu0 20 0 10 70 0 0 0 0 5 0
cpu1 10 0 10 75 5 0 0 0 0 0
intr 12 0
"""


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        pytest.param("0", (0,), id="one"),
        pytest.param("0-3", (0, 1, 2, 3), id="a range"),
        pytest.param("4-5,0", (4, 5, 0), id="a range and one, as written"),
    ],
)
def test_cpus_are_named_as_for_taskset(text: str, cores: tuple[int, ...]) -> None:
    assert parse_cores(text) == cores


@pytest.mark.parametrize("text", ["", "a", "0-", "3-1", "0,0", "0-2,1", "-1"])
def test_what_names_no_cpus_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|names no CPU"):
        parse_cores(text)


@pytest.mark.parametrize(
    ("cpus", "mask"),
    [
        pytest.param((0,), "1", id="the first"),
        pytest.param((0, 1, 2, 3), "f", id="four"),
        pytest.param((31,), "80000000", id="the last of a word"),
        pytest.param((32,), "1,00000000", id="the first of the next word"),
        pytest.param((0, 64), "1,00000000,00000001", id="three words"),
    ],
)
def test_a_mask_is_written_in_words_of_32_bits(cpus: tuple[int, ...], mask: str) -> None:
    assert cpu_mask(cpus) == mask


def test_ticks_are_read_for_each_cpu_without_guests() -> None:
    assert read_ticks(STAT) == {0: Ticks(70, 100), 1: Ticks(80, 100)}


def test_busy_is_what_was_not_idle_of_the_asked_cpus() -> None:
    before = {0: Ticks(0, 0), 1: Ticks(0, 0)}
    after = {0: Ticks(10, 100), 1: Ticks(100, 100)}
    assert busy(before, after, (0,)) == pytest.approx(0.9)
    assert busy(before, after, (0, 1)) == pytest.approx(0.45)


def test_no_time_is_not_busy() -> None:
    assert busy({0: Ticks(5, 9)}, {0: Ticks(5, 9)}, (0,)) == 0

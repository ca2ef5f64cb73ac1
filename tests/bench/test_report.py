from collections.abc import Callable

import pytest

from bench import report
from bench.macro import Findings
from bench.measure import Result
from bench.measures import HAPROXY, MEMORY, NEW_CONNECTION, ONE_AT_A_TIME, TRAFFIC

NEW = TRAFFIC[0]
IDLE = MEMORY[0]


def results(*values: float, rate: float = 0.0) -> list[Result]:
    return [Result(value, rate, value * 2, value * 3) for value in values]


def findings() -> Findings:
    """A run of seven repeats; Squid took part in two, nginx fell out after one."""
    many = [100.0 + n for n in range(7)]
    found = Findings(notes=["nginx fell out at bulk, 1 connection: Connection reset by peer"])
    found.results[NEW_CONNECTION] = {
        "no proxy": results(*(value / 2 for value in many), rate=7000),
        "HAProxy": results(*many, rate=6000),
        "egressproxy": results(*(value * 1.05 for value in many), rate=5500),
        "nginx": results(99, rate=6100),
        "Squid": results(300, 310, rate=2000),
    }
    found.results["bulk, 1 connection"] = {
        "no proxy": results(*[200.0] * 7, rate=1.4e9),
        "HAProxy": results(*[1400.0] * 7, rate=0.7e9),
        "HAProxy splice": results(*[1000.0] * 7, rate=0.9e9),
        "egressproxy": results(580, 590, 570, 580, 590, 610, 575, rate=1.1e9),
        "Squid": results(800, 810, rate=1.0e9),
    }
    found.results[ONE_AT_A_TIME] = {
        "no proxy": results(*many, rate=4000),
        "HAProxy": results(*(value + 60 for value in many), rate=2700),
        "egressproxy": results(*(value + 50 + n for n, value in enumerate(many)), rate=2800),
    }
    found.results[IDLE.title] = {"HAProxy": results(3400, 3410), "egressproxy": results(700, 1100)}
    return found


def test_document_golden(golden: Callable[[str, str], None]) -> None:
    versions = {"egressproxy": "1.0", "HAProxy": "2.6.12"}
    golden("macro.md", report.document(findings(), "2 CPUs, Linux 6.18", versions))


def cells(ours: list[Result], theirs: list[Result], title: str) -> list[str]:
    text = report.goals({title: {HAPROXY: theirs, report.OURS: ours}})
    return [cell.strip() for cell in text.splitlines()[-1].strip("|").split("|")]


@pytest.mark.parametrize(
    ("values", "met"),
    [
        pytest.param([1.0] * 7, "met", id="below the goal"),
        pytest.param([1.1] * 7, "met", id="at it"),
        pytest.param([1.0] * 6 + [1.2], "met by the median only", id="the upper end is above"),
        pytest.param([1.2] * 7, "missed", id="above it"),
        pytest.param([1.0] * 5, "too few pairs to say", id="five pairs"),
        pytest.param([1.0] * 8 + [1.2], "met", id="one of nine is outside the interval"),
    ],
)
def test_a_goal_is_met_by_the_upper_end(values: list[float], met: str) -> None:
    assert cells(results(*values), results(*[1.0] * len(values)), NEW.title)[-2:] == [
        "ratio 1.10",
        met,
    ]


@pytest.mark.parametrize(
    ("octets", "met"),
    [
        pytest.param([600, 1024], "met", id="at most 1 KB"),
        pytest.param([600, 1025], "met by the median only", id="once more"),
        pytest.param([1100, 1025], "missed", id="more"),
    ],
)
def test_memory_has_an_absolute_goal(octets: list[float], met: str) -> None:
    assert cells(results(*octets), results(3000, 3000), IDLE.title)[-2:] == ["1,024 octets", met]


def test_repeats_pair_from_the_first_on() -> None:
    planes = {"HAProxy": results(1, 2, 4), "slow": results(10, 20)}
    ratio = report.ratio_of(planes, "slow", "HAProxy")
    assert str(ratio) == "10.00 (10.00-10.00, n=2)"


def test_who_did_not_take_part_has_no_ratio() -> None:
    assert report.ratio_of({"HAProxy": results(1)}, "absent", "HAProxy") is None

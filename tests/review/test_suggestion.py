"""What a suggestion says."""

from __future__ import annotations

from egressproxy.review.suggestion import MAX_SAMPLE, Evidence, Kind, Suggestion
from tests.policy.building import NOON
from tests.review.subjects import counted, subject


def test_evidence_adds_up() -> None:
    found = Evidence.of(
        [
            counted(subject("a.example", src_ip="10.0.0.1"), 2, at=NOON),
            counted(subject("b.example", src_ip="10.0.0.2"), 5, at=NOON + 60),
            counted(subject("a.example", src_ip="10.0.0.2"), 1, at=NOON - 60),
        ]
    )
    assert found == Evidence(
        flows=8,
        targets=("b.example", "a.example"),
        target_count=2,
        sources=("10.0.0.2", "10.0.0.1"),
        source_count=2,
        first_at=NOON - 3660,
        last_at=NOON + 60,
    )


def test_samples_are_bounded() -> None:
    found = Evidence.of(
        [counted(subject(f"n{i}.example", src_ip=f"10.0.0.{i}")) for i in range(50)]
    )
    assert (found.target_count, len(found.targets)) == (50, MAX_SAMPLE)
    assert (found.source_count, len(found.sources)) == (50, MAX_SAMPLE)


def test_yaml_is_the_item_in_its_section() -> None:
    one = Suggestion(
        kind=Kind.NAME,
        title="a.example",
        why="no rule matches",
        evidence=Evidence.of([counted(subject())]),
        section="rules",
        entry=("- name: a.example", "  to: [a.example]"),
    )
    assert one.is_offered
    assert one.yaml == "rules:\n  - name: a.example\n    to: [a.example]\n"


def test_what_is_withheld_may_have_nothing_to_copy() -> None:
    evidence = Evidence.of([counted(subject())])
    one = Suggestion(kind=Kind.WITHHELD, title="a.example", why="suspicious", evidence=evidence)
    assert not one.is_offered
    assert one.yaml == ""

"""Include files of suggestions: read back by the loader, added to, and never another's."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.review.replay import replay
from egressproxy.review.suggest import suggest
from egressproxy.review.write_policy import MARK, NotOursError, include_text, write_include
from tests.policy.building import NOON
from tests.review.subjects import Told, counted, subject

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.policy.rules import Policy
    from egressproxy.review.model import SubjectCount
    from egressproxy.review.suggestion import Suggestion

ROOT = """\
version: 1
cloud: AzureCloud
parameters: {location: japaneast}
sources: {cluster-a: [10.240.0.0/16]}
"""
DAY = (
    counted(subject("packages.aks.azure.com"), 1204),
    counted(subject("a.example"), 2),
    counted(subject("bad.example"), 9),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(ROOT)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "suggested.yaml"


def suggestions(policy: Policy, *day: SubjectCount) -> tuple[Suggestion, ...]:
    told = Told(suspicious=("bad.example",))
    return suggest(day or DAY, policy, compile_policy(policy), told, NOON)


def test_a_new_file(root: Path, target: Path) -> None:
    policy = load_policy(root)
    done = write_include(target, suggestions(policy), policy, NOON)
    assert (done.added, done.kept, done.is_included, done.include) == (2, 0, False, target.name)
    mark, digest, *body = target.read_text().splitlines()
    assert mark == MARK
    assert digest.startswith("# sha256 of what follows: ")
    assert body == [
        "version: 1",
        "requirements:",
        "  # Suggested 2026-06-15 12:00 UTC.",
        "  # 1,204 flows of 1 client, 2026-06-15 11:00 to 2026-06-15 12:00: What every cluster"
        " needs by name",
        "  # risk: 9 documented names, 1 asked for; any customer can have a name that is",
        "  # *.hcp.japaneast.azmk8s.io; one client alone wanted it",
        "  - aks/core: {from: [cluster-a]}",
        "rules:",
        "  # Suggested 2026-06-15 12:00 UTC.",
        "  # 2 flows of 1 client, 2026-06-15 11:00 to 2026-06-15 12:00: no rule matches",
        "  # risk: this name alone; one client alone wanted it",
        "  - name: a.example",
        "    to: [a.example]",
        "    ports: [https]",
        "    from: [cluster-a]",
    ]
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert sorted(path.name for path in target.parent.iterdir()) == ["policy.yaml", target.name]


def test_included_it_opens_what_was_suggested(root: Path, target: Path) -> None:
    before = load_policy(root)
    write_include(target, suggestions(before), before, NOON)
    root.write_text(ROOT + "include: [suggested.yaml]\n")
    after = load_policy(root)
    found = replay(DAY, compile_policy(before), compile_policy(after), NOON)
    assert {one.target for one in found.newly_allowed} == {"packages.aks.azure.com", "a.example"}
    assert not suggestions(after)[0].is_offered


def test_a_file_that_is_included_keeps_what_it_has(root: Path, target: Path) -> None:
    policy = load_policy(root)
    write_include(target, suggestions(policy), policy, NOON)
    target.chmod(0o640)
    root.write_text(ROOT + "include: [suggested.yaml]\n")
    policy = load_policy(root)
    port = counted(subject("a.example", dst_port=8443))
    more = suggestions(policy, *DAY, port, counted(subject("data.policy.core.windows.net")))
    done = write_include(target, more, policy, NOON)
    assert (done.added, done.kept, done.is_included) == (2, 2, True)
    rules = load_policy(root).rules
    ids = [rule.id for rule in rules]
    assert ids[:2] == ["suggested.yaml/rules/a.example", "suggested.yaml/rules/a.example 2"]
    assert {rule.requirement for rule in rules} == {None, "aks/core", "aks/azure-policy"}
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_file_that_is_not_included_is_written_anew(root: Path, target: Path) -> None:
    policy = load_policy(root)
    write_include(target, suggestions(policy), policy, NOON)
    done = write_include(target, suggestions(policy, DAY[1]), policy, NOON)
    assert (done.added, done.kept) == (1, 0)
    assert "aks/core" not in target.read_text()


def test_nothing_offered_writes_nothing(root: Path, target: Path) -> None:
    policy = load_policy(root)
    assert write_include(target, suggestions(policy, DAY[2]), policy, NOON).added == 0
    assert not target.exists()


OTHERS = {
    "hand-written": ("version: 1\n", "was not written by suggest"),
    "empty": ("", "was not written by suggest"),
    "binary": ("\0\1\2", "was not written by suggest"),
    "a mark and nothing more": (MARK, "was edited"),
    "a wrong digest": (f"{MARK}\n# sha256 of what follows: 00\nversion: 1\n", "was edited"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_file_of_somebody_else_is_left_alone(root: Path, target: Path, case: str) -> None:
    content, says = OTHERS[case]
    target.write_text(content)
    policy = load_policy(root)
    with pytest.raises(NotOursError, match=says):
        write_include(target, suggestions(policy), policy, NOON)
    assert target.read_text() == content


def test_a_file_of_ours_that_was_edited_is_left_alone(root: Path, target: Path) -> None:
    policy = load_policy(root)
    write_include(target, suggestions(policy), policy, NOON)
    edited = target.read_text().replace("a.example", "b.example")
    target.write_text(edited)
    with pytest.raises(NotOursError, match="edited since") as caught:
        write_include(target, suggestions(policy), policy, NOON)
    assert "choose another file" in caught.value.hint
    assert target.read_text() == edited


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_regular_file(root: Path, target: Path, kind: str) -> None:
    if kind == "link":
        target.symlink_to(root)
    elif kind == "folder":
        target.mkdir()
    else:
        os.mkfifo(target)
    policy = load_policy(root)
    with pytest.raises(NotOursError, match="is no file of suggestions"):
        write_include(target, suggestions(policy), policy, NOON)
    assert root.read_text() == ROOT


def test_outside_the_folder_it_cannot_be_included(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "etc").mkdir()
    moved = root.rename(tmp_path / "etc" / "policy.yaml")
    policy = load_policy(moved)
    outside, below = tmp_path / "other" / "s.yaml", tmp_path / "etc" / "s.yaml"
    assert write_include(outside, suggestions(policy), policy, NOON).include == ""
    assert write_include(below, suggestions(policy), policy, NOON).include == "s.yaml"


def test_a_folder_that_is_not_there(root: Path, tmp_path: Path) -> None:
    policy = load_policy(root)
    with pytest.raises(FileNotFoundError):
        write_include(tmp_path / "no" / "s.yaml", suggestions(policy), policy, NOON)


def test_the_text_alone_is_what_is_written(root: Path, target: Path) -> None:
    policy = load_policy(root)
    found = suggestions(policy)
    write_include(target, found, policy, NOON)
    assert target.read_text().split("\n", 2)[2] == include_text(found, NOON)
    assert include_text([each for each in found if not each.is_offered], NOON) == ""

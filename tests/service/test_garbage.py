"""Collection happens when asked and the young generation has grown, in bounded steps."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import TYPE_CHECKING

import pytest

from egressproxy.service.garbage import YOUNG_OBJECTS, YOUNG_PASSES, Garbage

if TYPE_CHECKING:
    from collections.abc import Iterator


class Node:
    """Part of a cycle."""

    def __init__(self) -> None:
        self.other: Node | None = None


LONG = 19
"""A length that no other tuple here has: CPython keeps dead tuples for later by their length."""


@pytest.fixture
def garbage() -> Iterator[Garbage]:
    was_frozen = gc.get_freeze_count()
    made = Garbage()
    made.take_over()
    assert not gc.isenabled()
    assert gc.get_freeze_count() > was_frozen
    yield made
    gc.unfreeze()
    gc.enable()
    gc.collect()


def cycle() -> weakref.ref[Node]:
    one, two = Node(), Node()
    one.other, two.other = two, one
    return weakref.ref(one)


def grow() -> list[list[int]]:
    return [[] for _ in range(YOUNG_OBJECTS + 100)]


def test_few_young_objects_wait(garbage: Garbage) -> None:
    dead = cycle()
    garbage.turn()
    assert dead() is not None


def test_grown_young_generation_is_collected(garbage: Garbage) -> None:
    dead, alive = cycle(), grow()
    garbage.turn()
    assert dead() is None
    assert alive


def test_survivors_are_collected_now_and_then(garbage: Garbage) -> None:
    one, two = Node(), Node()
    one.other, two.other = two, one
    dead, alive = weakref.ref(one), [grow()]
    garbage.turn()
    del one, two
    for _ in range(YOUNG_PASSES):
        assert dead() is not None
        alive.append(grow())
        garbage.turn()
        if dead() is None:
            break
    assert dead() is None


def test_what_was_built_is_exempt(garbage: Garbage) -> None:
    built, before = grow(), gc.get_freeze_count()
    garbage.built()
    assert gc.get_freeze_count() - before >= len(built)


def test_an_old_cycle_does_not_stay_with_it_either(garbage: Garbage) -> None:
    one, two = Node(), Node()
    one.other, two.other = two, one
    dead, alive = weakref.ref(one), grow()
    garbage.turn()
    del one, two
    garbage.built()
    assert dead() is None
    assert alive


def test_tuples_that_a_build_has_left_behind_are_given_back(garbage: Garbage) -> None:
    held = [tuple(range(LONG)) for _ in range(1_000)]
    kept, begun = len(held), sys.getallocatedblocks()
    held.clear()
    assert begun - sys.getallocatedblocks() < kept, "the interpreter keeps them for later"
    garbage.built()
    assert begun - sys.getallocatedblocks() >= kept


def test_a_cycle_that_is_dead_when_a_ruleset_is_built_does_not_stay_with_it(
    garbage: Garbage,
) -> None:
    dead, alive = cycle(), grow()
    garbage.built()
    assert dead() is None
    assert alive

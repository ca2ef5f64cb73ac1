"""Fixtures of the engine's tests; what they make is in ``world``."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from tests.planes.world import World, open_descriptors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from egressproxy.planes.context import EngineOptions
    from egressproxy.settings import Settings


@pytest.fixture
def worlds(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., World]]:
    """Makes worlds.

    At the end each has no flow left in any count, no defect was caught by the engine's barrier, and
    no descriptor stays open.
    """
    before = open_descriptors()
    made: list[World] = []

    def make(settings: Settings | None = None, options: EngineOptions | None = None) -> World:
        made.append(World(settings, options))
        return made[-1]

    yield make
    assert [r.exc_text for r in caplog.get_records("call") if r.exc_info] == []
    caplog.handler.reset()  # a traceback keeps its engine alive
    for world in made:
        world.engine.drain(0)
        world.engine.tick()
        assert world.engine.active == 0
        assert world.limits.total() == 0
        assert world.counters.active_total() == 0
        world.close()
    gc.collect()  # the engine's parts know each other, and the counters' mapping has a descriptor
    assert open_descriptors() == before


@pytest.fixture
def world(worlds: Callable[..., World]) -> World:
    return worlds()

"""A world with an upstream for the whole session; async tests run on asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.service.running import World, running, world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service.running import Service


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Namespaces and upstream."""
    with world(tmp_path_factory.mktemp("world")) as built:
        yield built


@pytest.fixture
def service(gate: World) -> Iterator[Service]:
    """A service of two workers, ready."""
    with running(gate) as started:
        yield started

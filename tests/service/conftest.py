"""A world with an upstream for the whole session; async tests run on asyncio."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
import structlog
from blockbuster import blockbuster_ctx

from egressproxy.service.journal import configure_journal
from tests.service.running import World, running, world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service.running import Service


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def no_blocking() -> Iterator[None]:
    """A call that blocks the loop, from within the package, fails the test."""
    configure_journal(io.StringIO())
    with blockbuster_ctx("egressproxy"):
        yield
    structlog.reset_defaults()


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

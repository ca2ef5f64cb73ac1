"""Stores of both kinds: a new SQLite file, a new database of a real PostgreSQL."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from egressproxy.review.store import Store, open_store
from tests.review.postgresql import Server, programs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    """One server for all tests of a run."""
    if programs() is None:
        pytest.skip("needs PostgreSQL (Debian: apt-get install postgresql)")
    # A socket's path has at most 107 octets, which those of pytest may exceed.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store can be made: a path, then a URL."""
    if request.param == "sqlite":
        return str(tmp_path / "review.db")
    server: Server = request.getfixturevalue("postgresql_server")
    return server.url()


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    """An empty store, of each kind in turn."""
    with open_store(place) as opened:
        yield opened

"""Async tests (``pytest.mark.anyio``) run on asyncio, as the service does; a browser for others."""

from __future__ import annotations

import pytest

from tests.admin.chromium import chromium, complaints, shoot, site, tab

__all__ = ["chromium", "complaints", "shoot", "site", "tab"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab.authority import create_authority

if TYPE_CHECKING:
    from lab.authority import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA, and in its folder ``good.pem`` for a.test."""
    made = create_authority(tmp_path_factory.mktemp("authority"))
    made.issue(["a.test"], stem="good")
    made.issue(["other.test"], stem="other")
    return made

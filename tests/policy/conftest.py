"""Policies as files: what the tests of the loader share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from egressproxy.errors import PolicyError
from egressproxy.policy.load import load_policy

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.policy.rules import Policy

HEAD = "version: 1\ncloud: AzureCloud\n"
"""Two lines: what a test adds begins on line 3."""


class Loader(Protocol):
    """Writes a policy and other files, and loads it."""

    def __call__(
        self, text: str, files: dict[str, str] | None = None, *, head: str = HEAD
    ) -> Policy: ...


class Finder(Protocol):
    """Writes a policy and other files, and gives its problems, paths relative to the folder."""

    def __call__(
        self, text: str, files: dict[str, str] | None = None, *, head: str = HEAD
    ) -> list[str]: ...


@pytest.fixture
def load(tmp_path: Path) -> Loader:
    def _load(text: str, files: dict[str, str] | None = None, *, head: str = HEAD) -> Policy:
        for name, content in (files or {}).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        root = tmp_path / "policy.yaml"
        root.write_text(head + text, encoding="utf-8")
        return load_policy(root)

    return _load


@pytest.fixture
def problems(tmp_path: Path, load: Loader) -> Finder:
    def _problems(text: str, files: dict[str, str] | None = None, *, head: str = HEAD) -> list[str]:
        with pytest.raises(PolicyError) as caught:
            load(text, files, head=head)
        return [str(one).replace(f"{tmp_path}/", "") for one in caught.value.problems]

    return _problems

"""The names that the configuration file of ``egressproxy up`` may have: those of its options."""

from __future__ import annotations

import click
import pytest

from egressproxy.cli.main import cli


def up_names() -> frozenset[str]:
    """All of them, as keys: without the file's own option."""
    command = cli.get_command(click.Context(cli), "up")
    if command is None:
        pytest.skip("there is no egressproxy up")
    return frozenset(each.name for each in command.params if each.name) - {"config"}

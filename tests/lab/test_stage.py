"""How the demo's tables look on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from lab.stage import Stage


def test_table_neither_pads_nor_wraps_its_last_column() -> None:
    shown = io.StringIO()
    stage = Stage(Console(file=shown, width=20, highlight=False, soft_wrap=True))
    long = "optional: vm-agent-updates [bold]"
    stage.table("Deny log", ("times", "name", "note"), [("1", "a.example", long), ("10", "b", "")])
    assert shown.getvalue().splitlines() == [
        "",
        "Deny log",
        "times  name       note",
        f"1      a.example  {long}",
        "10     b",
    ]

"""``AzureFiles``: a folder with a file for each of Azure Firewall's tables, one row a line.

A data collection rule (Azure Monitor agent, JSON logs) takes a file as it is. Files rotate as the
record log does.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from egressproxy.export.azure import Table, azure_row
from egressproxy.observe.sink import FileSink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from egressproxy.observe.record import FlowRecord


class AzureFiles:
    """An ``Outlet``.

    Args:
        folder: made where it is not there; its parent must be.
        rotate_bytes: size at which a file is renamed; 0 never.
        rotate_files: renamed files kept.

    Raises:
        ServiceError: a file cannot be opened.
    """

    def __init__(self, folder: Path, *, rotate_bytes: int, rotate_files: int) -> None:
        self.lost = 0
        with suppress(OSError):  # what is in the way is said of the file that cannot be opened
            folder.mkdir(mode=0o750, exist_ok=True)
        self._sinks = {
            table: FileSink(folder / f"{table}.json", rotate_bytes, rotate_files) for table in Table
        }

    def take(self, records: Sequence[FlowRecord]) -> None:
        """Append a row for each record; a full disk loses them."""
        rows: dict[str, list[str]] = {}
        for record in records:
            row = azure_row(record)
            rows.setdefault(row["Type"], []).append(json.dumps(row, separators=(",", ":")))
        for table, lines in rows.items():
            if self._sinks[Table(table)].write("".join(f"{line}\n" for line in lines).encode()):
                self.lost += len(lines)

    def reopen(self) -> None:
        """Open the files by name again, after somebody else renamed them."""
        for sink in self._sinks.values():
            sink.reopen()

    def close(self) -> None:
        """Close the files."""
        for sink in self._sinks.values():
            sink.close()

"""``AzureFiles``: a folder with a file for each of Azure Firewall's tables, one row a line.

A data collection rule (Azure Monitor agent, JSON logs) takes a file as it is. Files rotate as the
record log does.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from egressproxy.errors import ServiceError
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
        self.waiting = 0
        self._failing: set[Table] = set()
        with suppress(OSError):  # what is in the way is said of the file that cannot be opened
            folder.mkdir(mode=0o750, exist_ok=True)
        self._sinks: dict[Table, FileSink] = {}
        with ExitStack() as opened:
            for table in Table:
                sink = _sink(folder / f"{table}.json", rotate_bytes, rotate_files)
                opened.callback(sink.close)
                self._sinks[table] = sink
            opened.pop_all()

    @property
    def trouble(self) -> str:
        """Which files could not be written the last time."""
        names = ", ".join(f"{table}.json" for table in sorted(self._failing))
        return f"{names} cannot be written: is the disk full?" if names else ""

    def take(self, records: Sequence[FlowRecord]) -> None:
        """Append a row for each record; a full disk loses them."""
        rows: dict[Table, list[str]] = {}
        for record in records:
            row = azure_row(record)
            rows.setdefault(Table(row["Type"]), []).append(row_line(row))
        for table, lines in rows.items():
            if self._sinks[table].write("".join(lines).encode()):
                self.lost += len(lines)
                self._failing.add(table)
            else:
                self._failing.discard(table)

    def reopen(self) -> None:
        """Open the files by name again."""
        for sink in self._sinks.values():
            sink.reopen()

    def close(self) -> None:
        """Close the files."""
        for sink in self._sinks.values():
            sink.close()


def row_line(row: dict[str, object]) -> str:
    """A row as one line of JSON, ASCII, with its newline."""
    return json.dumps(row, separators=(",", ":")) + "\n"


def _sink(path: Path, rotate_bytes: int, rotate_files: int) -> FileSink:
    try:
        return FileSink(path, rotate_bytes, rotate_files)
    except ServiceError as error:
        cause = error.__cause__
        why = cause.strerror if isinstance(cause, OSError) else error.message
        raise ServiceError(f"{path} cannot be opened: {why}", hint=error.hint) from error

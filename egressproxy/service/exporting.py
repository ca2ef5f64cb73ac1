"""``Exports``: the recorder's consumer that hands every batch to outlets, and counts what is lost.

An outlet that cannot be opened when the service starts is an error. Later, in a recorder that
replaces another, it is tried again and again, and the records meanwhile are lost and counted.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Protocol

from egressproxy.errors import ServiceError
from egressproxy.export.opening import open_outlet
from egressproxy.export.outlet import CLOSE_S
from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.export.outlet import Outlet, Target
    from egressproxy.observe.cells import ExportKind
    from egressproxy.observe.record import FlowRecord
    from egressproxy.service.recorder_messages import RecorderSpec

RETRY_S: Final = 30.0
_GRACE_S: Final = 0.5


class ExportCounters(Protocol):
    """Where it counts; ``observe.counters.Counters.recorder()`` is one."""

    def export_lost(self, kind: ExportKind, records: int) -> None:
        """Records that could not be delivered."""
        ...


@dataclass(slots=True)
class _Export:
    """A target with its outlet, while there is one; ``counted`` of its losses are told."""

    target: Target
    outlet: Outlet | None = None
    counted: int = 0
    trouble: str = ""


class Exports:
    """A ``Consumer`` of the recorder; ``open`` it first. For one thread.

    Args:
        spec: the targets, and what outlets have to know of the service.
        counters: the recorder's row.
    """

    def __init__(self, spec: RecorderSpec, counters: ExportCounters) -> None:
        self._spec = spec
        self._counters = counters
        self._exports = tuple(_Export(target) for target in spec.exports)
        self._retry_at = 0.0

    def open(self, *, is_again: bool) -> None:
        """Open all outlets.

        Raises:
            ServiceError: one cannot be opened; not where others were open before (``is_again``).
        """
        try:
            for export in self._exports:
                self._open(export, is_again=is_again)
        except ServiceError:
            self.close()
            raise

    def take(self, records: Sequence[FlowRecord], lines: Sequence[bytes]) -> None:  # noqa: ARG002 - as the recorder calls it
        """Hand records to every outlet."""
        for export in self._exports:
            if export.outlet is None:
                self._counters.export_lost(export.target.kind, len(records))
            else:
                export.outlet.take(records)

    def tend(self) -> None:
        """Count what was lost, tell what fails, and try to open what is not."""
        must_retry = time.monotonic() >= self._retry_at
        for export in self._exports:
            if export.outlet is not None:
                self._count(export, export.outlet)
                _tell(export, export.outlet.trouble)
            elif must_retry:
                self._open(export, is_again=True)

    def reopen(self) -> None:
        """Open files by name again."""
        for export in self._exports:
            if export.outlet is not None:
                export.outlet.reopen()

    def close(self) -> None:
        """Deliver what waits, all outlets at the same time, and count what could not be."""
        closing = [
            (export, outlet, threading.Thread(target=outlet.close, daemon=True))
            for export in self._exports
            if (outlet := export.outlet) is not None
        ]
        for _, _, thread in closing:
            thread.start()
        deadline = time.monotonic() + CLOSE_S + _GRACE_S
        for export, outlet, thread in closing:
            thread.join(max(0.0, deadline - time.monotonic()))
            lost = self._count(export, outlet)
            if lost:
                journal().error("records are not exported", to=str(export.target), records=lost)

    def _open(self, export: _Export, *, is_again: bool) -> None:
        try:
            export.outlet = open_outlet(
                export.target,
                gateway=self._spec.gateway,
                version=version("egressproxy"),
                rotate_bytes=self._spec.rotate_bytes,
                rotate_files=self._spec.rotate_files,
            )
        except ServiceError as error:
            if not is_again:
                raise
            self._retry_at = time.monotonic() + RETRY_S
            _tell(export, str(error))

    def _count(self, export: _Export, outlet: Outlet) -> int:
        """Count what was lost since the last time; how much that is."""
        lost = max(0, outlet.lost - export.counted)
        if lost:
            export.counted += lost
            self._counters.export_lost(export.target.kind, lost)
        return lost


def _tell(export: _Export, trouble: str) -> None:
    """Say in the journal when an export begins to fail, and when it works again."""
    if trouble and not export.trouble:
        journal().error("an export fails, it is tried again", to=str(export.target), why=trouble)
    elif export.trouble and not trouble:
        journal().info("an export works again", to=str(export.target), lost=export.counted)
    export.trouble = trouble

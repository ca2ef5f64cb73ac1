"""What the catalog says of a denied subject: harmless, optional, needed by a requirement, seen as.

The catalog knows names and ports. With a policy its cloud and requirements count as they are now;
without one there is the note that the record was written with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.catalog.model import CLOUDS, Kind
from egressproxy.catalog.notes import rows_of_name
from egressproxy.catalog.symptoms import symptom_of
from egressproxy.ports import Protocol
from egressproxy.review.model import Class, Finding

if TYPE_CHECKING:
    from collections.abc import Collection

    from egressproxy.catalog.model import Row
    from egressproxy.review.model import Subject

_HARMLESS: Final = "harmless"
_OPTIONAL: Final = "optional: "
_NEEDED_BY: Final = "needed-by: "


@dataclass(frozen=True, slots=True)
class Known:
    """Rows of the catalog that mean a subject, by name and port.

    ``held`` are the requirements of the policy, ``None`` where there is no policy.
    """

    rows: tuple[Row, ...]
    note: str
    held: Collection[str] | None

    @property
    def symptom(self) -> str:
        """What is seen in AKS while it is denied; of what is harmless nothing."""
        return symptom_of(list(self.rows))

    def finding(self) -> Finding | None:
        """The class, where the catalog has one for it."""
        for row in self.rows:
            if row.note is not None:
                return self._noted(row)
        if self.held is None:
            return self._as_noted_then()
        if any(row.requirement in self.held for row in self.rows):
            return None
        return self._missing([row for row in self.rows if row.suggested])

    def _noted(self, row: Row) -> Finding:
        purpose = row.purpose.removesuffix(".")  # more may follow in the same line
        if row.note == _HARMLESS:
            return Finding(
                kind=Class.HARMLESS, why=f"documented as harmless when blocked: {purpose}"
            )
        return Finding(
            kind=Class.OPTIONAL, why=f"documented as optional: {purpose}", symptom=row.symptom
        )

    def _as_noted_then(self) -> Finding | None:
        if self.note == _HARMLESS:
            return Finding(kind=Class.HARMLESS, why="documented as harmless when blocked")
        if self.note.startswith(_OPTIONAL):
            return Finding(kind=Class.OPTIONAL, why=f"documented as {self.note}")
        if not self.note.startswith(_NEEDED_BY):
            return None
        wanted = self.note.removeprefix(_NEEDED_BY).split(", ")
        return self._missing([row for row in self.rows if row.requirement in wanted])

    def _missing(self, rows: list[Row]) -> Finding | None:
        """The first requirement that a cluster must have; else the first."""
        if not rows:
            return None
        required = [row for row in rows if row.kind is Kind.REQUIRED]
        first = (required or rows)[0]
        names = list(dict.fromkeys((first.requirement, *(row.requirement for row in rows))))
        also = f" (and by {', '.join(names[1:])})" if len(names) > 1 else ""
        kind = Class.MISSING_REQUIREMENT if required else Class.OPTIONAL
        verb = "needed" if required else "recommended"
        why = f"{verb} by {names[0]}{also}, which the policy does not list"
        return Finding(kind=kind, why=why, requirement=names[0], symptom=self.symptom)


def known(subject: Subject, cloud: str | None, held: Collection[str] | None) -> Known | None:
    """What the catalog knows of a subject; ``None`` where it knows nothing.

    Without a cloud the first that has the name counts. Never raises, whatever the name is.
    """
    if subject.name is None:
        return None
    for one in CLOUDS if cloud is None else (cloud,):
        rows = tuple(row for row in rows_of_name(subject.name, one) if _is_on_port(row, subject))
        if rows:
            return Known(rows, subject.note, held)
    return Known((), subject.note, held) if held is None and subject.note else None


def by_port(subject: Subject) -> str:
    """What the catalog has at every address on a subject's port, for what has no name."""
    return "" if subject.name else _ANYWHERE.get((subject.protocol, subject.dst_port), "")


_ANYWHERE: Final = {
    ("udp", 123): "NTP: aks/ntp allows it; Linux nodes made after March 2021 do not need it",
    ("udp", 1194): "aks/tunnel's port: clusters with konnectivity-agent do not need it",
    ("tcp", 9000): "aks/tunnel's port: clusters with konnectivity-agent do not need it",
}


def _is_on_port(row: Row, subject: Subject) -> bool:
    """Whether a row has the port; what nobody read (tcp) may have been TLS or HTTP."""
    return any(
        subject.dst_port in span
        and (
            span.protocol == subject.protocol
            or (span.protocol.is_application and subject.protocol == Protocol.TCP)
        )
        for span in row.ports
    )

"""What people see in AKS while a documented name is denied: ``symptom``.

The words are the catalog's, row by row, and say only what Microsoft's documents or the exit codes
that AKS publishes say: the node's custom script extension (CSE) ends with a number that names what
it could not reach (Azure/AgentBaker, parts/linux/cloud-init/artifacts/cse_helpers.sh).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from egressproxy.catalog.model import Kind
from egressproxy.catalog.notes import rows_of_name

if TYPE_CHECKING:
    from egressproxy.catalog.model import Row


def symptom(name: str, cloud: str, *, port: int | None = None) -> str:
    """What is seen while a name is denied in a cloud, or an empty text; never raises.

    With ``port``, only where the documents have the name on that port.
    """
    rows = rows_of_name(name, cloud)
    if port is not None:
        rows = [row for row in rows if any(port in span for span in row.ports)]
    return symptom_of(rows)


def symptom_of(rows: list[Row]) -> str:
    """The first symptom of rows that mean one name, those of what a cluster must have first."""
    told = [row for row in rows if row.symptom]
    told.sort(key=lambda row: row.kind is not Kind.REQUIRED)
    return told[0].symptom if told else ""

"""Rows of the catalog as people and programs read them, in the terminal and in the browser."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from egressproxy.catalog.model import CLOUDS, ExpandedRow, Row


@dataclass(frozen=True, slots=True)
class Line:
    """A row as it is shown: its destinations filled in or as templates."""

    row: Row
    destinations: tuple[str, ...]

    @classmethod
    def of_row(cls, row: Row) -> Line:
        """A row with its templates unfilled."""
        return cls(row, row.destinations)

    @classmethod
    def of_expanded(cls, expanded: ExpandedRow) -> Line:
        """A row with its templates filled."""
        if expanded.any_destination:
            return cls(expanded.row, ("any address",))
        texts = (
            *map(str, expanded.patterns),
            *(f"tag:{tag}" for tag in expanded.tags),
            *map(str, expanded.networks),
        )
        return cls(expanded.row, texts)

    @property
    def need(self) -> str:
        """Whether a cluster needs it."""
        return "note only" if self.row.is_note else str(self.row.kind)

    @property
    def remarks(self) -> list[str]:
        """What a person must know besides the purpose."""
        row = self.row
        remarks = [f"when {condition}" for condition in row.when]
        remarks += [
            f"not needed {exemption.text}"
            + (f" ({exemption.flag}: true)" if exemption.flag else "")
            for exemption in row.not_needed
        ]
        if row.ours:
            remarks.append(f"ours: {row.ours}")
        if row.symptom:
            remarks.append(f"while denied: {row.symptom}")
        since = [row.since, *(exemption.since for exemption in row.not_needed)]
        remarks += [f"as of: {one}" for one in since if one]
        if row.is_note:
            remarks.append(f"never allowed by this requirement; a deny's note: {row.note}")
        return remarks

    def as_json(self) -> dict[str, Any]:
        """The row's JSON object."""
        row = self.row
        return {
            "id": row.id,
            "cloud": row.cloud,
            "destinations": list(self.destinations),
            "ports": [str(span) for span in row.ports],
            "kind": str(row.kind),
            "purpose": row.purpose,
            "document": row.document,
            "section": row.section,
            "group": row.group,
            "via": row.via,
            "when": {condition.parameter: condition.value for condition in row.when},
            "not_needed": [
                {"text": one.text, "parameter": one.flag, "as_of": one.since}
                for one in row.not_needed
            ],
            "ours": row.ours,
            "as_of": row.since,
            "note": row.note,
            "symptom": row.symptom,
        }


def by_cloud(lines: list[Line]) -> list[tuple[str, list[Line]]]:
    """The lines of each cloud; once only where every cloud has the same."""
    clouds = {cloud: [line for line in lines if line.row.cloud == cloud] for cloud in CLOUDS}
    bare = [[replace(line, row=replace(line.row, cloud="")) for line in clouds[c]] for c in CLOUDS]
    if all(one == bare[0] for one in bare):
        return [("Every cloud", clouds[CLOUDS[0]])]
    return [(cloud, of_cloud) for cloud, of_cloud in clouds.items() if of_cloud]

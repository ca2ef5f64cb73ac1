"""The catalog's word on a denied name: ``harmless``, ``optional: …``, ``needed-by: …`` or nothing.

A tree of labels walked from the right answers in the number of labels, whatever the catalog's
size. A placeholder (``{location}``) is one label of any text. Names are a client's: the walk cannot
fail and the memo is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final

from egressproxy.catalog.loader import load_catalog
from egressproxy.catalog.templates import PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from egressproxy.catalog.model import Row
    from egressproxy.names import DnsName

MAX_MEMO: Final = 4096
"""Names remembered by one ``Notes``; it starts over when they are reached."""

_ANY: Final = "*"  # no label of a DnsName has a star


class Notes:
    """The notes for one policy: what its cloud's rows say of names it denies."""

    def __init__(self, cloud: str, requirements: Collection[str]) -> None:
        self._tree = _tree(cloud)
        self._held = frozenset(requirements)
        self._memo: dict[str, str] = {}

    def of(self, name: DnsName) -> str:
        """The note, or an empty text; never raises.

        A name that a requirement of the policy covers has none: something else denied it.
        """
        found = self._memo.get(name)
        if found is None:
            if len(self._memo) >= MAX_MEMO:
                self._memo.clear()
            found = self._memo[name] = self._say(name)
        return found

    def _say(self, name: str) -> str:
        needed: dict[str, None] = {}
        for row in self._tree.rows_for(name):
            if row.note is not None:
                return row.note
            if row.requirement in self._held:
                return ""
            if row.suggested:
                needed[row.requirement] = None
        return f"needed-by: {', '.join(needed)}" if needed else ""


def note(name: DnsName, cloud: str, requirements: Collection[str]) -> str:
    """``Notes(cloud, requirements).of(name)``, for one name."""
    return Notes(cloud, requirements).of(name)


def rows_of_name(name: str, cloud: str) -> list[Row]:
    """The rows of a cloud that mean a name, in the catalog's order; those that only note first.

    Whatever the name is, nothing is raised; a placeholder is one label of any text.
    """
    return _tree(cloud).rows_for(name)


@dataclass(slots=True)
class _Node:
    """What is known below a suffix.

    ``exact`` are rows whose name ends here; ``wild`` are wildcards below here, each with the text
    that the left-most label must start with.
    """

    children: dict[str, _Node] = field(default_factory=dict)
    exact: list[tuple[int, Row]] = field(default_factory=list)
    wild: list[tuple[int, str, Row]] = field(default_factory=list)

    def add(self, template: str, row: Row, order: int) -> None:
        labels = PLACEHOLDER.sub(_ANY, template).split(".")
        wildcard = labels.pop(0) if _is_wildcard(template) else None
        node = self
        for label in reversed(labels):
            node = node.children.setdefault(label, _Node())
        if wildcard is None:
            node.exact.append((order, row))
        else:
            node.wild.append((order, wildcard[:-1], row))

    def rows_for(self, name: str) -> list[Row]:
        """The rows that mean this name, in the catalog's order; notes come first."""
        found = list(self._walk(name.split("."), name))
        return [row for _, row in sorted(found, key=lambda entry: entry[0])]

    def _walk(self, labels: list[str], name: str) -> Iterator[tuple[int, Row]]:
        if not labels:
            yield from self.exact
            return
        rest = sum(map(len, labels)) + len(labels) - 1
        for order, prefix, row in self.wild:
            if rest > len(prefix) and name.startswith(prefix):
                yield order, row
        for label in (labels[-1], _ANY):
            child = self.children.get(label)
            if child is not None:
                yield from child._walk(labels[:-1], name)  # noqa: SLF001 - of the same class


@cache
def _tree(cloud: str) -> _Node:
    tree = _Node()
    rows = [row for r in load_catalog().requirements for row in r.rows if row.cloud == cloud]
    rows.sort(key=lambda row: not row.is_note)
    for order, row in enumerate(rows):
        for template in row.names:
            tree.add(template, row, order)
    return tree


def _is_wildcard(template: str) -> bool:
    return template.partition(".")[0].endswith("*")

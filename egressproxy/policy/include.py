"""From the root file to all files of a policy, in the order in which their rules are judged."""

from __future__ import annotations

import os.path
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from egressproxy.catalog.parameters import PARAMETERS
from egressproxy.errors import nearest
from egressproxy.policy.document import INCLUDED, ROOT, Document, Included, ParameterValue
from egressproxy.policy.sources import EVERYONE, Clients, GroupTable, clients_of
from egressproxy.policy.yaml_nodes import MAX_BYTES, Node, parse_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from egressproxy.policy.document import IncludeEntry
    from egressproxy.policy.fields import At
    from egressproxy.policy.files import Folder
    from egressproxy.policy.networks import Network
    from egressproxy.policy.problems import Problems, Report

MAX_FILES: Final = 200
"""Includes of one policy, a file that is included twice counted twice."""
MAX_INCLUDE_DEPTH: Final = 8
MAX_TOTAL_BYTES: Final = 4 * MAX_BYTES
"""All documents of one policy together, a file that is included twice counted twice."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a file takes over from the files that include it."""

    groups: Mapping[str, tuple[Network, ...]] = field(default_factory=dict)
    parameters: Mapping[str, At[ParameterValue]] = field(default_factory=dict)
    cap: Clients = EVERYONE


@dataclass(frozen=True, slots=True)
class Part:
    """One file with its scope; ``prefix`` begins the ids of its rules (empty for the root)."""

    document: Included
    path: Path
    prefix: str
    scope: Scope
    report: Report


class Tree:
    """Reads a root file and what it includes; the parts stand in order of judgement."""

    def __init__(self, folder: Folder, problems: Problems) -> None:
        self.parts: list[Part] = []
        self.groups = GroupTable()
        self._folder = folder
        self._problems = problems
        self._included: Counter[Path] = Counter()
        self._bytes = 0

    def read_root(self, path: Path) -> Document | None:
        """The root document with its includes; ``None`` where it has no readable shape."""
        report = self._problems.of(path)
        node = self._nodes(path, None, report)
        document = ROOT.read(node, report) if node is not None else None
        if document is not None:
            self._take(document, path, "", Scope(), (path.resolve(),))
        return document

    def _nodes(self, path: Path, at: tuple[Node, Report] | None, report: Report) -> Node | None:
        asked, where = at if at is not None else (None, report)
        data = self._folder.read(path, MAX_BYTES, asked, where)
        if data is None:
            return None
        self._bytes += len(data)
        if self._bytes > MAX_TOTAL_BYTES:
            what = f"documents of more than {MAX_TOTAL_BYTES >> 20} MB in all"
            where.stop(asked, what, "mass lists of names go into a file: list:names.txt")
        return parse_yaml(data, report)

    def _take(
        self, document: Included, path: Path, prefix: str, outer: Scope, chain: tuple[Path, ...]
    ) -> None:
        report = self._problems.of(path)
        groups = self.groups.define(document.sources or (), outer.groups, report)
        parameters = {**outer.parameters, **_known_parameters(document, report)}
        part = Part(document, path, prefix, Scope(groups, parameters, outer.cap), report)
        self.parts.append(part)
        for entry in document.include or ():
            self._include(entry, part, chain)

    def _include(self, entry: IncludeEntry, part: Part, chain: tuple[Path, ...]) -> None:
        cap = clients_of(entry.sources, part.scope.groups, part.scope.cap, part.report)
        if entry.file is None:
            return
        at = entry.file.node
        path = self._folder.find(entry.file.value, part.path, at, part.report)
        if path is None or not self._may_include(path, at, part.report, chain):
            return
        report = self._problems.of(path)
        node = self._nodes(path, (at, part.report), report)
        document = INCLUDED.read(node, report) if node is not None else None
        if document is not None:
            scope = Scope(part.scope.groups, part.scope.parameters, cap)
            self._take(document, path, self._prefix(path), scope, (*chain, path.resolve()))

    def _may_include(self, path: Path, at: Node, report: Report, chain: tuple[Path, ...]) -> bool:
        self._included[path.resolve()] += 1
        if path.resolve() in chain:
            names = [file.name for file in chain[chain.index(path.resolve()) :]]
            loop = " -> ".join([*names, path.name])
            report.add(at, f"the include goes in a circle: {loop}", "remove one of them")
        elif len(chain) > MAX_INCLUDE_DEPTH:
            report.add(at, f"includes are nested deeper than {MAX_INCLUDE_DEPTH} files")
        elif self._included.total() > MAX_FILES:
            report.add(at, f"more than {MAX_FILES} includes", "put their rules into fewer files")
        else:
            return True
        return False

    def _prefix(self, path: Path) -> str:
        """The file's name in ids; a file that is included again gets a number."""
        name = Path(os.path.relpath(path, self._folder.root)).as_posix()
        times = self._included[path.resolve()]
        return f"{name}@{times}/" if times > 1 else f"{name}/"


def _known_parameters(document: Included, report: Report) -> dict[str, At[ParameterValue]]:
    known = {}
    for name, value in document.parameters or ():
        if name.value in PARAMETERS:
            known[name.value] = value
        else:
            hint = nearest(name.value, PARAMETERS) or f"there are {', '.join(PARAMETERS)}"
            report.add(name.node, f"there is no parameter {name.value!r}", hint)
    return known

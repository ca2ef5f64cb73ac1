"""YAML text to a tree of nodes that know their line and column; refuses what no policy needs.

The tree is built here from the events of PyYAML's C parser, without recursion and with bounds,
because its own composer recurses in C on nesting and libyaml 0.2.5 takes quadratic time on it:
reading stops at the first event that goes too deep. Scalars stay the text that was written; what
YAML 1.1 would make of it is in ``yaml_scalars``. Refused: several documents, tags, merge keys,
duplicate keys, keys that are no scalars, recursive aliases, and sizes beyond the limits below.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import yaml

from egressproxy.policy.text import decode, place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.policy.problems import Report

MAX_BYTES: Final = 10 * 1024 * 1024
MAX_DEPTH: Final = 32
MAX_ALIASES: Final = 1000
MAX_SCALAR: Final = 256 * 1024
"""Characters of one text; the longest that means something is a list of addresses in one text."""
MAX_NODES: Final = 2_000_000
"""Nodes of a document, counted as if every alias were written out."""


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """A text; ``is_plain`` where it was written without quotes."""

    text: str
    is_plain: bool
    line: int
    column: int


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """Keys with their values, in order; no two keys have the same text."""

    entries: tuple[tuple[Scalar, Node], ...]
    line: int
    column: int


Node = Scalar | Sequence | Mapping


def parse_yaml(data: bytes, report: Report) -> Node | None:
    """The root node, or ``None`` where the text cannot be read; every problem is reported.

    A duplicate or merge key is reported and reading goes on; any other problem ends it.
    """
    text = decode(data, report, limit=MAX_BYTES)
    if text is None:
        return None
    builder = _Builder(report)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            builder.take(event)
    except _RefusedError:
        return None
    except yaml.MarkedYAMLError as error:
        _report_syntax(error, text, report)
        return None
    except yaml.reader.ReaderError as error:
        # The C parser gives an offset in UTF-8, and a number where the stubs say a character.
        line, column = place(text.encode()[: error.position].decode())
        what = f"character #x{int(error.character):04x} is not allowed in YAML"
        report.at(line, column, what, "remove it, or write it as an escape in double quotes")
        return None
    if builder.root is None:
        report.at(1, 1, "an empty document", "a policy is a mapping of keys")
    return builder.root


class _RefusedError(Exception):
    """Reading cannot go on; the problem is reported already."""


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being read."""

    line: int
    column: int
    is_mapping: bool
    anchor: str | None
    nodes: list[Node] = field(default_factory=list)
    lines_of_keys: dict[str, int] = field(default_factory=dict)
    size: int = 1
    height: int = 1

    def close(self) -> Sequence | Mapping:
        if not self.is_mapping:
            return Sequence(tuple(self.nodes), self.line, self.column)
        pairs = zip(self.nodes[::2], self.nodes[1::2], strict=True)
        entries = ((key, value) for key, value in pairs if isinstance(key, Scalar))
        return Mapping(_first_of_each(entries), self.line, self.column)


def _first_of_each(entries: Iterator[tuple[Scalar, Node]]) -> tuple[tuple[Scalar, Node], ...]:
    first: dict[str, tuple[Scalar, Node]] = {}
    for key, value in entries:
        first.setdefault(key.text, (key, value))
    return tuple(first.values())


class _Builder:
    """Takes parser events one by one; ``root`` is the tree after the last."""

    def __init__(self, report: Report) -> None:
        self.root: Node | None = None
        self._report = report
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int, int] | None] = {}
        self._documents = self._aliases = self._nodes = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._check_tag(event)
                if len(event.value) > MAX_SCALAR:
                    self._refuse(event, f"a text of {len(event.value):,} characters")
                line, column = self._mark(event)
                node = Scalar(event.value, not event.style, line, column)
                self._begin(event)
                self._add(node, event.anchor, 1, 1, event)
            case yaml.CollectionStartEvent():
                self._check_tag(event)
                self._begin(event)
                line, column = self._mark(event)
                is_mapping = isinstance(event, yaml.MappingStartEvent)
                self._open.append(_Open(line, column, is_mapping, event.anchor))
                self._check_depth(1, event)
            case yaml.CollectionEndEvent():
                done = self._open.pop()
                self._add(done.close(), done.anchor, done.size, done.height, event)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._refuse(event, "a second document", "one policy a file: use include")
            case _:
                pass  # the start and end of stream and document

    def _begin(self, event: yaml.NodeEvent) -> None:
        """Count a node and note its anchor, which may not be used before the node's end."""
        self._count(1, event)
        if event.anchor is not None:
            if event.anchor in self._anchors:
                self._refuse(event, f"anchor &{event.anchor} is defined twice")
            self._anchors[event.anchor] = None

    def _alias(self, event: yaml.AliasEvent) -> None:
        name = event.anchor or ""
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            self._refuse(event, f"more than {MAX_ALIASES} aliases", "write the values out")
        if name not in self._anchors:
            hint = f'quote a text that begins with *: "*{name}"'
            self._refuse(event, f"alias *{name} has no anchor", hint)
        anchored = self._anchors[name]
        if anchored is None:
            self._refuse(event, f"alias *{name} is inside its own anchor")
        else:
            node, size, height = anchored
            self._count(size, event)
            self._check_depth(height, event)
            self._add(node, None, size, height, event)

    def _add(
        self, node: Node, anchor: str | None, size: int, height: int, event: yaml.Event
    ) -> None:
        if anchor is not None:
            self._anchors[anchor] = (node, size, height)
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.size += size
        parent.height = max(parent.height, height + 1)
        if parent.is_mapping and not len(parent.nodes) % 2:
            self._check_key(node, parent, event)
        parent.nodes.append(node)

    def _check_key(self, node: Node, parent: _Open, event: yaml.Event) -> None:
        line, column = self._mark(event)
        if not isinstance(node, Scalar):
            self._refuse(event, "a key that is a list or mapping", "a key is a text")
        elif node.is_plain and node.text == "<<":
            hint = "write the keys out, or share rules with include"
            self._report.at(line, column, "merge keys (<<) are not read", hint)
        elif node.text in parent.lines_of_keys:
            hint = f"the first is on line {parent.lines_of_keys[node.text]}: keep one"
            self._report.at(line, column, f"key {node.text!r} is written twice", hint)
        else:
            parent.lines_of_keys[node.text] = line

    def _check_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.tag is not None:
            self._refuse(event, f"the tag {event.tag!r}", "tags are not read: quote the text")

    def _check_depth(self, height: int, event: yaml.Event) -> None:
        if len(self._open) + height - 1 > MAX_DEPTH:
            self._refuse(event, f"nested deeper than {MAX_DEPTH} levels")

    def _count(self, size: int, event: yaml.Event) -> None:
        self._nodes += size
        if self._nodes > MAX_NODES:
            what = f"more than {MAX_NODES} values, aliases written out"
            self._refuse(event, what, "move mass lists to a file and write list:names.txt")

    @staticmethod
    def _mark(event: yaml.Event) -> tuple[int, int]:
        mark = event.start_mark
        return mark.line + 1, mark.column + 1  # type: ignore[union-attr]  # the C parser sets it

    def _refuse(self, event: yaml.Event, what: str, hint: str = "") -> None:
        line, column = self._mark(event)
        self._report.at(line, column, what, hint)
        raise _RefusedError


_SYNTAX_HINTS: Final = (
    ("scanning an alias", 'quote a text that begins with *: "*.example.com"'),
    ("scanning an anchor", "quote a text that begins with &"),
    (
        "mapping values are not allowed",
        'quote a text that has ": " in it, or check the indentation',
    ),
    ("did not find expected ',' or ']'", "the list that begins here is not closed with ]"),
    ("did not find expected ',' or '}'", "the mapping that begins here is not closed with }"),
    ("quoted scalar", "close the quotes that open here"),
    ("incompatible YAML document", "remove the %YAML line"),
    ("could not find expected ':'", "a key and its value are written  key: value"),
    ("expected <block end>", "align it with the lines above"),
    ("did not find expected key", "align it with the lines above"),
)


def _report_syntax(error: yaml.MarkedYAMLError, text: str, report: Report) -> None:
    what = ", ".join(part for part in (error.context, error.problem) if part)
    hint = next((hint for words, hint in _SYNTAX_HINTS if words in what), "")
    # What is not closed is seen at its end, and mended where it begins.
    is_open = error.context_mark is not None and "here" in hint
    mark = error.context_mark if is_open else error.problem_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    report.at(line, column, f"not YAML: {what}", hint or _hint_of_start(text, line, column))


def _hint_of_start(text: str, line: int, column: int) -> str:
    lines = text.splitlines()
    start = lines[line - 1][column - 1 : column] if 0 < line <= len(lines) else ""
    if start == "\t":
        return "indent with spaces, not tabs"
    if start in ("@", "`", "%"):
        return f"quote a text that begins with {start}"
    return "check indentation, quotes and brackets"

"""Readers of YAML nodes: each checks one shape, reports what is wrong, and knows its JSON Schema.

The document's shape is written once, as dataclass fields (``document``); reading, the messages and
the schema for editors come from there. Values keep their node, because later checks (unknown
source, unknown tag) must point at it too. pydantic is not used here: it stops at the first wrong
shape of a model, and a policy shows every problem at once, with its column.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from datetime import date
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from egressproxy.errors import EgressproxyError, nearest
from egressproxy.policy.yaml_nodes import Mapping, Node, Scalar, Sequence
from egressproxy.policy.yaml_scalars import is_null, misreading

if TYPE_CHECKING:
    from collections.abc import Callable
    from enum import StrEnum

    from egressproxy.policy.problems import Report

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Choice_ = TypeVar("Choice_", bound="StrEnum")
Schema = dict[str, Any]

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


class Reader(Protocol[T_co]):
    """Reads one node; ``None`` where a problem was reported."""

    def read(self, node: Node, report: Report) -> T_co | None:
        """The value, or ``None`` and at least one problem."""

    def schema(self) -> Schema:
        """JSON Schema (2020-12) of what is read."""


@dataclass(frozen=True, slots=True)
class At(Generic[T]):
    """A value and the node it was read from."""

    value: T
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Generic[T]):
    """A text that ``parse`` understands; ``instead`` says what to write for a bare number."""

    what: str
    parse: Callable[[str], T]
    form: Schema = field(default_factory=dict)
    instead: Callable[[str], str] | None = None

    def read(self, node: Node, report: Report) -> At[T] | None:
        """The parsed text."""
        if not isinstance(node, Scalar):
            report.add(node, f"{self.what} is expected, not {kind(node)}")
            return None
        if read_as := misreading(node):
            self._report_misreading(node, read_as, report)
            return None
        try:
            return At(self.parse(node.text), node)
        except EgressproxyError as error:
            report.add(node, error.message, error.hint)
            return None

    def _report_misreading(self, node: Scalar, read_as: str, report: Report) -> None:
        if read_as == "empty":
            report.add(node, f"{self.what} is missing here", "give a value or remove the key")
            return
        hint = self.instead(node.text) if self.instead else f'quote it: "{node.text}"'
        report.add(node, f"{node.text} is read as {read_as} by YAML, not as {self.what}", hint)

    def schema(self) -> Schema:
        """A string."""
        return {"type": "string", **self.form}


@dataclass(frozen=True, slots=True)
class Choice(Generic[Choice_]):
    """One word of an enum."""

    what: str
    choices: tuple[Choice_, ...]

    def read(self, node: Node, report: Report) -> At[Choice_] | None:
        """The member."""
        words = [choice.value for choice in self.choices]
        text = node.text if isinstance(node, Scalar) else kind(node)
        for choice in self.choices:
            if isinstance(node, Scalar) and choice.value == text:
                return At(choice, node)
        hint = nearest(text, words, count=1) or f"write {' or '.join(words)}"
        report.add(node, f"{text or 'nothing'} is not {self.what}", hint)
        return None

    def schema(self) -> Schema:
        """An enum."""
        return {"enum": [choice.value for choice in self.choices]}


@dataclass(frozen=True, slots=True)
class Day:
    """A date, quoted or not; the last UTC day on which something counts."""

    what: str

    def read(self, node: Node, report: Report) -> At[date] | None:
        """The date."""
        text = node.text if isinstance(node, Scalar) else kind(node)
        try:
            if isinstance(node, Scalar) and _DAY.fullmatch(text):
                return At(date.fromisoformat(text), node)
            what = f"{text or 'nothing'} is not {self.what}"
        except ValueError as error:
            what = f"{text} is not {self.what}: {error}"
        report.add(node, what, "write 2026-12-31, the last day (UTC) on which it counts")
        return None

    def schema(self) -> Schema:
        """A date."""
        return {"type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}


@dataclass(frozen=True, slots=True)
class Constant:
    """A number that must be this one, such as the document's version."""

    what: str
    value: int

    def read(self, node: Node, report: Report) -> int | None:
        """The number."""
        if isinstance(node, Scalar) and node.is_plain and node.text == str(self.value):
            return self.value
        text = node.text if isinstance(node, Scalar) else kind(node)
        is_quoted = isinstance(node, Scalar) and text == str(self.value)
        hint = f"write {self.value}" + (" without quotes" if is_quoted else "")
        report.add(node, f"{text or 'nothing'} is not {self.what}", hint)
        return None

    def schema(self) -> Schema:
        """A constant."""
        return {"const": self.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf(Generic[T]):
    """A list of what ``item`` reads; empty lists only where they can mean but one thing."""

    what: str
    item: Reader[T]
    may_be_empty: bool = False

    def read(self, node: Node, report: Report) -> tuple[T, ...] | None:
        """The items that can be read."""
        if self.may_be_empty and isinstance(node, Scalar) and is_null(node):
            return ()
        if not isinstance(node, Sequence):
            self._report_shape(node, report)
            return None
        if not node.items and not self.may_be_empty:
            hint = f"list at least one of {self.what}, or remove the key"
            report.add(node, "an empty list", hint)
            return None
        values = (self.item.read(item, report) for item in node.items)
        return tuple(value for value in values if value is not None)

    def _report_shape(self, node: Node, report: Report) -> None:
        hint = "write a list: - item, or [item, item]"
        if isinstance(node, Scalar) and not is_null(node):
            hint = f"write [{node.text}]" if node.is_plain else f'write ["{node.text}"]'
        report.add(node, f"a list of {self.what} is expected, not {kind(node)}", hint)

    def schema(self) -> Schema:
        """An array."""
        if self.may_be_empty:
            return {"type": ["array", "null"], "items": self.item.schema()}
        return {"type": "array", "items": self.item.schema(), "minItems": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOf(Generic[T]):
    """A mapping whose keys are names that the policy's author chose."""

    what: str
    key: Text[str]
    value: Reader[T]

    def read(self, node: Node, report: Report) -> tuple[tuple[At[str], T], ...] | None:
        """Keys and values, in order."""
        if isinstance(node, Scalar) and is_null(node):
            return ()
        if not isinstance(node, Mapping):
            report.add(node, f"{self.what} is expected, not {kind(node)}", "write  name: value")
            return None
        read = [(self.key.read(k, report), self.value.read(v, report)) for k, v in node.entries]
        return tuple((key, value) for key, value in read if key is not None and value is not None)

    def schema(self) -> Schema:
        """An object."""
        return {
            "type": ["object", "null"],
            "propertyNames": self.key.form,
            "additionalProperties": self.value.schema(),
        }


def key(reader: Reader[Any], about: str, *, name: str = "", required: bool = False) -> Any:
    """A dataclass field that a ``Record`` reads; ``name`` is the YAML key where it differs."""
    return field(
        default=None,
        metadata={"reader": reader, "about": about, "name": name, "required": required},
    )


@dataclass(frozen=True, slots=True)
class Known:
    """One key of a record."""

    attribute: str
    reader: Reader[Any]
    about: str
    required: bool


class Record(Generic[T]):
    """A mapping with known keys, read into a dataclass whose fields are ``key(…)``.

    Args:
        cls: the dataclass; its field ``node`` takes the mapping.
        what: what a person calls it, with an article.
        elsewhere: keys that are known and do not belong here, each with the reason.
    """

    def __init__(self, cls: type[T], what: str, elsewhere: dict[str, str] | None = None) -> None:
        self.cls = cls
        self.what = what
        self.elsewhere: Final = elsewhere or {}
        self.known: Final = {
            f.metadata["name"] or f.name: Known(
                f.name, f.metadata["reader"], f.metadata["about"], f.metadata["required"]
            )
            for f in fields(cls)  # type: ignore[arg-type]  # T is a dataclass by contract
            if "reader" in f.metadata
        }

    def read(self, node: Node, report: Report) -> T | None:
        """The record; keys with problems are left out of it."""
        if not isinstance(node, Mapping):
            hint = f"write its keys: {', '.join(self.known)}"
            report.add(node, f"{self.what} is expected, not {kind(node)}", hint)
            return None
        values: dict[str, Any] = {}
        for name, child in node.entries:
            if name.text in self.known:
                known = self.known[name.text]
                value = known.reader.read(child, report)
                if value is not None:
                    values[known.attribute] = value
            else:
                report.add(name, *self._unknown(name.text))
        written = {name.text for name, _ in node.entries}
        for missing in (n for n, k in self.known.items() if k.required and n not in written):
            about = self.known[missing].about
            report.add(node, f"{self.what} lacks the key {missing!r}", f"{missing}: {about}")
        return self.cls(node=node, **values)  # type: ignore[call-arg]  # as above

    def _unknown(self, name: str) -> tuple[str, str]:
        if name in self.elsewhere:
            return f"{name!r} does not belong here", self.elsewhere[name]
        hint = nearest(name, self.known, count=1) or f"the keys are {', '.join(self.known)}"
        return f"unknown key {name!r} in {self.what}", hint

    def schema(self) -> Schema:
        """An object that takes these keys only."""
        return {
            "type": "object",
            "additionalProperties": False,
            "required": [name for name, known in self.known.items() if known.required],
            "properties": {
                name: {"description": known.about, **known.reader.schema()}
                for name, known in self.known.items()
            },
        }


def kind(node: Node) -> str:
    """What a node is, as a person says it."""
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node, Mapping):
        return "a mapping"
    return "nothing" if is_null(node) else "a single value"

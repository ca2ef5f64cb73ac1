"""Names that differ only in a label that a machine made, and the pattern that means them.

A wildcard is for labels that vary by their shape (``shapes``), three at least, below a suffix that
is one organisation's. The narrowest that fits: ``md-*.suffix`` where all begin alike. Of names that
people chose, each is written out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.errors import PatternError
from egressproxy.patterns import Pattern, parse_pattern
from egressproxy.policy.lint_names import is_shared, shared_suffix
from egressproxy.review.shapes import Shape, common_prefix, shape_of, varying_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping


MANY_NUMBERED: Final = 10
"""Names such as ``shard12`` that are more than somebody wrote down one by one."""

_NUMBERED: Final = re.compile(r"([a-z][a-z-]*)[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wildcard:
    """A pattern, the names it was made of, and the shape by which they vary."""

    pattern: Pattern
    shape: Shape
    names: tuple[str, ...]


def wildcards(names: Mapping[str, Hashable]) -> tuple[Wildcard, ...]:
    """The wildcards that names are a reason for; each name is in one at most.

    Args:
        names: in normal form, each with what must be equal for names to be put together (ports).
    """
    found: tuple[Wildcard, ...] = ()
    for head_of in (_head, _nothing_stands, _before_number):
        made = {name for wildcard in found for name in wildcard.names}
        found += _found({n: names[n] for n in names if n not in made}, head_of)
    return found


def _found(
    names: Mapping[str, Hashable], head_of: Callable[[str], str | None]
) -> tuple[Wildcard, ...]:
    groups: dict[tuple[str, Hashable, str], list[str]] = {}
    for name, alike in names.items():
        label, _, suffix = name.partition(".")
        head = head_of(label)
        if head is not None:
            groups.setdefault((suffix, alike, head), []).append(name)
    made = (_of_group(suffix, head, sorted(group)) for (suffix, _, head), group in groups.items())
    return tuple(wildcard for wildcard in made if wildcard is not None)


def _head(label: str) -> str | None:
    """What stands still before a label's last part: ``node-`` of ``node-7f9d41``."""
    if shape_of(label) in (Shape.REGION, Shape.HASH):
        return ""  # us-east-1 and a UUID have hyphens of their own
    head, hyphen, tail = label.rpartition("-")
    return head + hyphen if shape_of(tail).varies else None


def _nothing_stands(label: str) -> str | None:
    return "" if shape_of(label).varies else None


def _before_number(label: str) -> str | None:
    """The word of ``shard12``; a number alone stays nothing."""
    found = _NUMBERED.fullmatch(label)
    return found[1] if found else None


def _of_group(suffix: str, head: str, names: list[str]) -> Wildcard | None:
    if "." not in suffix or is_shared(suffix) or shared_suffix(f"x.{suffix}"):
        return None
    prefix, shape = _variation([name.partition(".")[0] for name in names], head)
    if shape is None:
        return None
    try:
        pattern = parse_pattern(f"{prefix}*.{suffix}")
    except PatternError:
        return None
    return Wildcard(pattern, shape, tuple(names))


def _variation(labels: list[str], head: str) -> tuple[str, Shape | None]:
    """What labels begin with, and the shape of the rest; ``None`` where that does not vary."""
    prefix = common_prefix(labels)
    shape = varying_shape([label.removeprefix(prefix) for label in labels])
    if shape is None:
        prefix, shape = "", varying_shape(labels)
    if shape is None and _NUMBERED.fullmatch(f"{head}0") and len(set(labels)) >= MANY_NUMBERED:
        return head, Shape.NUMBER
    return prefix, shape

"""How a name nearly is what a pattern means; for people only, it decides nothing."""

from __future__ import annotations

from difflib import SequenceMatcher
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from egressproxy.policy.lookalike import decoded, foreign_letters, skeleton

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.names import DnsName
    from egressproxy.patterns import Pattern

_ALIKE: Final = 0.84
"""How much of a misspelt name must be right; one wrong letter in seven is about that."""


class Kind(StrEnum):
    """In what a near miss differs; in order of how much it explains."""

    SHADOWED = "shadowed"
    EXPIRED = "expired"
    SOURCE = "source"
    PORT = "port"
    PROTOCOL = "protocol"
    LOOKALIKE = "lookalike"
    APEX = "apex"
    BELOW = "below"
    PREFIX = "prefix"
    LABEL = "label"
    SPELLING = "spelling"


def difference(pattern: Pattern, name: DnsName) -> tuple[Kind | None, str]:
    """The kind of difference and a sentence; ``(None, "")`` where they are not near."""
    suffix = str(pattern.suffix)
    is_below = name.endswith("." + suffix)
    if pattern.prefix is not None and name == suffix:
        return Kind.APEX, f"{pattern} does not cover the apex {name}"
    if pattern.prefix is None and is_below:
        return Kind.BELOW, f"{pattern} is that name only; names below it are *.{pattern}"
    if pattern.prefix and is_below:
        return Kind.PREFIX, f"{pattern} covers names that start with {pattern.prefix!r}"
    tail = _tail(name, suffix) if pattern.prefix is not None else str(name)
    if tail and tail != suffix:
        return _other_name(pattern, name, tail, suffix)
    return None, ""


def _tail(name: str, suffix: str) -> str:
    """As many labels from the right of a name as a suffix has, where there is one more."""
    labels, size = name.split("."), suffix.count(".") + 1
    return ".".join(labels[-size:]) if len(labels) > size else ""


def _other_name(pattern: Pattern, name: DnsName, tail: str, suffix: str) -> tuple[Kind | None, str]:
    if skeleton(tail) == skeleton(suffix):
        letters = ", ".join(foreign_letters(tail))
        reason = f" ({letters})" if letters else ""
        return Kind.LOOKALIKE, f"{decoded(name)} only looks like {pattern}{reason}"
    ours, theirs = tail.split("."), suffix.split(".")
    if len(ours) == len(theirs):
        different = [i for i, label in enumerate(ours) if label != theirs[i]]
        if len(different) == 1 and len(ours) > 2 and _is_telling(different[0], len(ours), pattern):
            place = different[0]
            kind = Kind.LABEL
            if place == len(ours) - 2 and _is_alike(ours[place], theirs[place]):
                kind = Kind.SPELLING  # the domain itself: another region is never there
            return kind, f"{pattern} has {theirs[place]!r} where this has {ours[place]!r}"
    matcher = SequenceMatcher(None, tail, suffix, autojunk=False)
    if matcher.real_quick_ratio() > _ALIKE and matcher.quick_ratio() > _ALIKE:
        # Another host of a domain is another name; of two labels the first is the domain itself.
        is_other_host = len(ours) > 2 and ours[1:] == theirs[1:]
        if matcher.ratio() > (0.9 if is_other_host else _ALIKE):
            return Kind.SPELLING, f"{pattern} is spelt almost like this"
    return None, ""


def _is_alike(ours: str, theirs: str) -> bool:
    return SequenceMatcher(None, ours, theirs, autojunk=False).ratio() > _ALIKE


def _is_telling(place: int, labels: int, pattern: Pattern) -> bool:
    """Another host of one domain says nothing; another region or domain inside the name does."""
    return place > 0 or (pattern.prefix is not None and labels > 3)


def parents(name: str) -> Iterator[str]:
    """The names above a name, the nearest first."""
    _, _, parent = name.partition(".")
    while parent:
        yield parent
        _, _, parent = parent.partition(".")

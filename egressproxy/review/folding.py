"""Names that differ in their left-most label alone, as one line: ``*.t.exfil.example``, 100 names.

A list of denies is read by a person. A thousand names that a machine made up below one suffix, all
with the same finding, are one thing to decide about. Suffixes below which anybody can have a name
(``blob.core.windows.net``) fold nothing: those names belong to different people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from egressproxy.patterns import is_public_suffix

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

MIN_FOLDED: Final = 4
"""Names below one suffix from which on they are one line."""
_MIN_LABELS: Final = 3

T = TypeVar("T")


def fold(
    lines: Iterable[T], name_of: Callable[[T], str], alike: Callable[[T], Hashable]
) -> list[tuple[str, list[T]]]:
    """Lines with the key that they are shown under: a name, or ``*.suffix`` for several.

    Only lines that are ``alike`` fold into one: two kinds below one suffix are two with one key.
    """
    families: dict[tuple[str, Hashable], list[T]] = {}
    folded: list[tuple[str, list[T]]] = []
    for line in lines:
        name = name_of(line)
        suffix = _suffix(name)
        if suffix is None:
            folded.append((name, [line]))
        else:
            families.setdefault((suffix, alike(line)), []).append(line)
    for (suffix, _), family in families.items():
        if len(family) < MIN_FOLDED or is_public_suffix(suffix, private=True):
            folded += [(name_of(line), [line]) for line in family]
        else:
            folded.append((f"*.{suffix}", family))
    return folded


def _suffix(name: str) -> str | None:
    """What is right of the first label, where that may be a family; addresses have none."""
    if name.count(".") < _MIN_LABELS - 1 or ":" in name or name.startswith(("(", "*")):
        return None
    suffix = name.partition(".")[2]
    return None if suffix.rpartition(".")[2].isdigit() else suffix

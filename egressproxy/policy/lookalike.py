"""Names that read like another: homoglyphs, digits for letters, ``rn`` for ``m``.

``skeleton`` maps names that look alike to one text, in the manner of Unicode TS 39 section 4. The
table is small on purpose: lower-case letters that imitate ASCII in common fonts (``i`` and ``1``
are taken for ``l``). It makes hints for people and decides nothing.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_PAIRS: Final = str.maketrans(
    "авеіјкмнорсԁѕтухһӏԛԝ" + "αεικνορτυχγ" + "ɑɡıłøđ" + "013i57",
    "abeljkmhopcdstyxhlqw" + "aelkvoptuxy" + "agllod" + "olelst",
)
_GROUPS: Final = (("rn", "m"), ("vv", "w"), ("cl", "d"))


def decoded(name: str) -> str:
    """A name as a person reads it: A-labels decoded where they can be."""
    return ".".join(map(_decoded_label, name.split(".")))


def _decoded_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except (UnicodeError, IndexError):
        return label


def skeleton(name: str) -> str:
    """One text for all names that read alike."""
    plain = unicodedata.normalize("NFKD", decoded(name).casefold())
    text = "".join(char for char in plain if not unicodedata.combining(char)).translate(_PAIRS)
    for pair, single in _GROUPS:
        text = text.replace(pair, single)
    return text


def foreign_letters(name: str) -> tuple[str, ...]:
    """The Unicode names of a name's letters outside ASCII, each once."""
    letters = dict.fromkeys(char for char in decoded(name) if not char.isascii())
    return tuple(unicodedata.name(letter, f"U+{ord(letter):04X}") for letter in letters)

"""What the labels of names look like: a word that somebody chose, or one that a machine made.

``a3f9c04e``, ``node-7f9d`` and ``japaneast`` vary from resource to resource; ``api`` and ``cdn2``
do not. Only labels that vary by their shape are a reason to write a wildcard: somebody's five
words are five names. Names are a client's: whatever it chose, the answer is a shape.
"""

from __future__ import annotations

import re
from enum import StrEnum
from itertools import pairwise
from math import log2
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

MIN_LABELS: Final = 3
"""Labels of one shape that show that a label varies; two may be a coincidence."""

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_HEX: Final = re.compile(r"(?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{6,64}", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{3,}", re.ASCII)
_MIN_RANDOM: Final = 8
_MIN_UNSPEAKABLE: Final = 10  # "strength" has one vowel in eight letters
_MIN_TURNS: Final = 3
"""Changes between letters and digits: ``x7k2m9`` has five, ``cdn2`` and ``s3`` have one."""
_MAX_VOWELS: Final = 0.2
_MIN_BITS: Final = 2.5
"""Entropy of one character; twelve different characters have 3.6, ``aaaaaaaabbbb`` has 0.9."""

_GEOGRAPHY: Final = (
    "asia|asiapacific|australia|austria|belgium|brazil|canada|chile|china|denmark|europe|eu|france"
    "|germany|global|india|indonesia|israel|italy|japan|jioindia|korea|malaysia|mexico|newzealand"
    "|norway|poland|qatar|southafrica|spain|sweden|switzerland|taiwan|uae|uk|us|usdod"
)
_SIDE: Final = "(?:north|south|east|west|central)"
_REGION: Final = re.compile(  # Azure's: japaneast, southcentralus, westus3, and their geographies
    rf"{_SIDE}{{0,2}}(?:{_GEOGRAPHY}){_SIDE}{{0,2}}[0-9]?|usgov(?:arizona|texas|virginia)",
    re.ASCII,
)
_CLOUD_REGION: Final = re.compile(  # others number theirs: us-east-1, europe-west4
    rf"[a-z]{{2,12}}(?:-gov)?-{_SIDE}{{1,2}}-?[0-9]{{1,2}}", re.ASCII
)


class Shape(StrEnum):
    """What a label looks like."""

    WORD = "word"
    NUMBER = "number"
    HASH = "hash"
    RANDOM = "random"
    REGION = "region"

    @property
    def in_words(self) -> str:
        """With its article, as in "they differ in …"."""
        return "random text" if self is Shape.RANDOM else f"a {self.value}"

    @property
    def varies(self) -> bool:
        """Whether other labels of this shape are to be expected where this one stood."""
        return self is not Shape.WORD


def shape_of(label: str) -> Shape:
    """The shape of one label, in normal form or as a client wrote it."""
    if _REGION.fullmatch(label) or _CLOUD_REGION.fullmatch(label):
        return Shape.REGION
    if _NUMBER.fullmatch(label):
        return Shape.NUMBER
    if _UUID.fullmatch(label) or _HEX.fullmatch(label):
        return Shape.HASH
    return Shape.RANDOM if _is_random(label) else Shape.WORD


def varying_shape(labels: Collection[str]) -> Shape | None:
    """The shape by which labels vary; ``None`` where one is a word, or they are too few.

    Random, hash and number are one family: of a machine's labels some happen to be all digits.
    """
    shapes = {shape_of(label) for label in labels}
    if len(set(labels)) < MIN_LABELS or not all(shape.varies for shape in shapes):
        return None
    if len(shapes) == 1:
        return shapes.pop()
    if Shape.REGION in shapes:
        return None
    return Shape.RANDOM if Shape.RANDOM in shapes else Shape.HASH


def common_prefix(labels: Iterable[str]) -> str:
    """What all labels begin with, up to and with a hyphen: ``md-`` of ``md-a1``, ``md-b2``."""
    ordered = sorted(labels)
    if not ordered:
        return ""
    first, last = ordered[0], ordered[-1]
    size = next((i for i, char in enumerate(first) if last[i : i + 1] != char), len(first))
    return first[: first.rfind("-", 0, size) + 1]


def _is_random(label: str) -> bool:
    text = label.replace("-", "").replace("_", "")
    if len(text) < _MIN_RANDOM or label.startswith("xn--"):
        return False
    digits = sum(char.isdigit() for char in text)
    turns = sum(one.isdigit() != other.isdigit() for one, other in pairwise(text))
    if digits and turns >= _MIN_TURNS:
        return _bits(text) >= _MIN_BITS
    letters = len(text) - digits
    vowels = sum(char in "aeiouy" for char in text)
    is_unspeakable = letters >= _MIN_UNSPEAKABLE and vowels <= _MAX_VOWELS * letters
    return is_unspeakable and "-" not in label and _bits(text) >= _MIN_BITS


def _bits(text: str) -> float:
    """Entropy of a character, in bits."""
    size = len(text)
    counts = [text.count(char) for char in set(text)]
    return -sum(count / size * log2(count / size) for count in counts)

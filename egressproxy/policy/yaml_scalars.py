"""What YAML 1.1 readers make of a plain scalar: the traps ``no``, ``22:30``, ``1_000`` and dates.

A policy takes plain scalars as the text they are. Where another reader of the same file (an editor,
a template engine, kubectl) would see something else, the text must be quoted, so that the file
means the same to everyone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import yaml

if TYPE_CHECKING:
    from egressproxy.policy.yaml_nodes import Scalar

_PREFIX: Final = "tag:yaml.org,2002:"
_READ_AS: Final = {
    "bool": "a boolean",
    "float": "a number",
    "int": "a number",
    "null": "empty",
    "timestamp": "a date",
}
_RESOLVERS: Final = yaml.SafeLoader.yaml_implicit_resolvers


def misreading(scalar: Scalar) -> str:
    """What a YAML 1.1 reader takes a plain scalar for, or an empty text where it is text."""
    if not scalar.is_plain:
        return ""
    for tag, expression in _RESOLVERS.get(scalar.text[:1], ()):
        if expression.match(scalar.text):
            read_as = _READ_AS.get(tag.removeprefix(_PREFIX), "")
            if read_as == "a number" and ":" in scalar.text:
                return "a number in base 60"
            return read_as
    return ""


def is_null(scalar: Scalar) -> bool:
    """Whether nothing was written: ``key:``, ``~`` or ``null``."""
    return misreading(scalar) == "empty"

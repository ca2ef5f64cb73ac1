"""What a rule's ``to:`` and ``from:`` items mean: a name pattern, a range, a tag or a list."""

from __future__ import annotations

import re
from dataclasses import dataclass

from egressproxy.errors import AddressError, PatternError, nearest
from egressproxy.patterns import Pattern, parse_pattern
from egressproxy.policy.networks import Network, looks_like_address, parse_network

_SOURCE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}", re.ASCII)
_DOTTED_NUMBERS = re.compile(r"[0-9]+\.[0-9.*x]*", re.ASCII)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://([^/:?#]*)", re.ASCII)
_NAME_AND_PORT = re.compile(r"([^:/]+):([0-9]{1,5})", re.ASCII)
_SCHEMES = ("tag", "list")
_ANYWHERE = frozenset({"any", "all", "internet", "*"})


@dataclass(frozen=True, slots=True)
class TagReference:
    """``tag:Sql.JapanEast``, as written."""

    name: str


@dataclass(frozen=True, slots=True)
class ListReference:
    """``list:mirrors.txt``, relative to the file that says so."""

    path: str


Target = Pattern | Network | TagReference | ListReference


def parse_target(text: str) -> Target:
    """Read one item of ``to:``.

    Raises:
        PatternError: no form of a destination.
        AddressError: meant as an address range, and none.
    """
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "tag":
        return TagReference(_rest(rest, text, "tag:Sql or tag:Sql.JapanEast"))
    if colon and scheme == "list":
        return ListReference(_rest(rest, text, "list:names.txt"))
    if looks_like_address(text):
        return parse_network(text)
    if text.lower() in _ANYWHERE:
        raise PatternError(
            f"{text!r} would be everything",
            hint="name the destinations; by address it is 0.0.0.0/0 with tcp: or udp: ports",
        )
    if hint := _misuse(text):
        raise PatternError(f"{text!r} is not a destination", hint=hint)
    return parse_pattern(text)


def parse_source(text: str) -> Network | str:
    """Read one item of ``from:``: a range, or the name of a group in ``sources:``.

    Raises:
        AddressError: neither.
    """
    if looks_like_address(text) or "/" in text:
        return parse_network(text)
    if _DOTTED_NUMBERS.fullmatch(text):
        raise AddressError(
            f"{text!r} is neither a source group nor an address range",
            hint="an IPv4 address has four parts, as 10.1.2.3; a range is 10.1.2.0/24",
        )
    return parse_source_name(text)


def parse_source_name(text: str) -> str:
    """Read the name of a group of sources.

    Raises:
        AddressError: with the form of a name.
    """
    if not _SOURCE_NAME.fullmatch(text):
        raise AddressError(
            f"{text!r} is not the name of a source group",
            hint="begin with a letter; letters, digits, '-', '_' and '.', 63 at most",
        )
    return text


def _rest(rest: str, text: str, example: str) -> str:
    if not rest or rest != rest.strip():
        raise PatternError(f"{text!r} says no more than its kind", hint=f"write {example}")
    if not rest.isprintable():
        raise PatternError(f"{text!r} is not a text that a log can show", hint=f"write {example}")
    return rest


def _misuse(text: str) -> str:
    """What to write instead of the usual mistakes, or an empty text."""
    if url := _URL.match(text):
        return f"write the name only: {url[1]}" if url[1] else "write the name only"
    if written := _NAME_AND_PORT.fullmatch(text):
        return f"write {written[1]} here and the port in ports: [tls:{written[2]}]"
    if "/" in text:
        return f"a path cannot be judged without decryption: write {text.partition('/')[0]}"
    scheme, colon, _ = text.partition(":")
    return (
        (nearest(scheme.lower(), _SCHEMES, count=1) or "tag:, list:, a name, or a range")
        if (colon)
        else ""
    )

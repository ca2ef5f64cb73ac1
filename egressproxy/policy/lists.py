"""``list:`` files: one name or pattern a line, ``#`` begins a comment; up to millions of lines.

Plain names in normal form, which mass lists are made of, are recognised in bulk by one expression
and never become objects of their own; so are plain names behind ``*.`` that cannot be a public
suffix. Every other line goes through ``parse_pattern``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from egressproxy.errors import PatternError
from egressproxy.patterns import may_be_public_suffix, parse_pattern
from egressproxy.policy.networks import looks_like_address
from egressproxy.policy.rules import NameList
from egressproxy.policy.text import decode

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.policy.problems import Report

MAX_LIST_BYTES: Final = 256 * 1024 * 1024
MAX_LIST_LINES: Final = 10_000_000
MAX_LINE: Final = 1000
MAX_TOLD: Final = 20
"""Wrong lines of one file that are told; the rest is counted."""

# A subset of what DnsName leaves unchanged: no label above 63 octets (held by the length of the
# line), no "--" (A-labels), no last label that begins with a digit (addresses). The possessive
# quantifiers keep it linear on any line.
_PLAIN: Final = re.compile(
    r"(?:[a-z0-9_]++(?:-[a-z0-9_]++)*+\.)*+[a-z_][a-z0-9_]*+(?:-[a-z0-9_]++)*+", re.ASCII
)
_PLAIN_LENGTH: Final = 63


def parse_list(data: bytes, path: Path, report: Report) -> NameList:
    """The entries of a list in file order; wrong lines are reported with their number."""
    text = decode(data, report, limit=MAX_LIST_BYTES)
    if text is not None and text.count("\n") > MAX_LIST_LINES:
        report.add(None, f"more than {MAX_LIST_LINES:,} lines", "split it into several lists")
        text = None
    lines = text.split("\n") if text is not None else []
    is_plain = _PLAIN.fullmatch
    odd = [
        number
        for number, line in enumerate(lines)
        if len(line) > _PLAIN_LENGTH or not is_plain(line)
    ]
    wrong = _normalise(lines, odd, report)
    entries = tuple(filter(None, lines)) if odd else tuple(lines)
    if text is not None and not entries and not wrong:
        report.add(None, "an empty list", "one name or pattern a line")
    wildcard = next((lines[number] for number in odd if "*" in lines[number]), "")
    return NameList(path, entries, wildcard)


def _normalise(lines: list[str], odd: list[int], report: Report) -> int:
    """Put the normal form of each odd line in its place, empty to drop it; count wrong ones."""
    wrong = 0
    for number in odd:
        if _is_plain_wildcard(lines[number]):
            continue
        written = lines[number].partition("#")[0].strip()
        try:
            lines[number] = str(_parse(written)) if written else ""
        except PatternError as error:
            lines[number] = ""
            wrong += 1
            if wrong <= MAX_TOLD:
                report.at(number + 1, 1, error.message, error.hint)
    if wrong > MAX_TOLD:
        report.at(odd[-1] + 1, 1, f"{wrong - MAX_TOLD} more wrong lines are not shown")
    return wrong


def _is_plain_wildcard(line: str) -> bool:
    """Whether this is a ``*.suffix`` in normal form that needs no further look."""
    return (
        line.startswith("*.")
        and len(line) <= _PLAIN_LENGTH
        and _PLAIN.fullmatch(line, 2) is not None
        and not may_be_public_suffix(line[2:])
    )


def _parse(written: str) -> object:
    if len(written) > MAX_LINE:
        raise PatternError(f"a line of {len(written):,} characters", hint="one name a line")
    if looks_like_address(written):
        hint = "a list holds names: write ranges in a rule's to:"
        raise PatternError(f"{written!r} is an address", hint=hint)
    words = written.split()
    if len(words) > 1:
        what = f"{written!r} is more than one name"
        raise PatternError(what, hint=f"one name a line: {words[-1]}")
    return parse_pattern(written)

"""Findings as people read them: a line each, and below what is not well why, and what to do."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import click

from egressproxy.doctor.finding import Level

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from egressproxy.doctor.finding import Finding

_COLOURS: Final = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}
_WORD: Final = 4
_MAX_NAME: Final = 48


def findings_page(findings: Sequence[Finding], things: str) -> Iterator[str]:
    """Lines for a terminal, with colour codes; ``things`` are what is counted at the end."""
    width = min(max((len(each.check) for each in findings), default=0), _MAX_NAME)
    for each in findings:
        word = click.style(f"{each.level:<{_WORD}}", fg=_COLOURS[each.level], bold=True)
        yield f"{word}  {printable(each.check):<{width}}  {printable(each.seen)}"
        for label, text in (("why", each.why), ("fix", each.fix)):
            if text:
                yield " " * (_WORD + 2) + click.style(label, dim=True) + f"  {printable(text)}"
    yield ""
    yield f"{things}: {len(findings)}" + "".join(f", {word}" for word in _counted(findings))


def printable(text: str) -> str:
    """A text that moves no cursor, whoever named the process or the certificate in it."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def _counted(findings: Sequence[Finding]) -> Iterator[str]:
    counts = Counter(each.level for each in findings)
    for level in Level:
        if counts[level]:
            yield f"{counts[level]} {level}"

"""Collects everything wrong with a policy, so that a person fixes it in one go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from egressproxy.errors import PolicyError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_PROBLEMS: Final = 1000
"""Problems of one policy after which no more are looked for."""

MAX_RANGES: Final = 1_000_000
"""Address ranges of all rules together, service tags and source groups written out."""

MAX_TEXT: Final = 300
"""Characters of a problem's text or hint: what it quotes comes from the file."""


class StopLoadingError(Exception):
    """The policy is refused already, and to read on would cost too much."""


class Marked(Protocol):
    """Anything with a place in a file; both count from 1."""

    @property
    def line(self) -> int:
        """Line, from 1."""

    @property
    def column(self) -> int:
        """Column in characters, from 1."""


@dataclass(slots=True)
class Problems:
    """All problems of one load; equal ones (a file included twice) count once."""

    found: dict[Problem, None] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    told: int = 0
    ranges: int = 0

    def of(self, file: Path | str) -> Report:
        """The report of one file; problems are told in the order in which files are asked for."""
        self.files.setdefault(str(file), len(self.files))
        return Report(str(file), self)

    def add(self, problem: Problem) -> None:
        """Keep a problem.

        Raises:
            StopLoadingError: there are ``MAX_PROBLEMS``; hints alone would take long for more.
        """
        self.told += 1
        if self.told > MAX_PROBLEMS:
            raise StopLoadingError
        self.found[problem] = None

    def error(self, files: Iterable[Path] = ()) -> PolicyError:
        """All problems as one error, by file, line and column; ``files`` are those looked for."""
        told = sorted(self.found, key=lambda p: (self.files[p.file], p.line, p.column))
        if self.told > MAX_PROBLEMS:
            told.append(Problem(told[-1].file, 0, 0, "there may be more, not looked for"))
        return PolicyError(tuple(told), tuple(files))


@dataclass(frozen=True, slots=True)
class Report:
    """Where the problems of one file go."""

    file: str
    problems: Problems

    def add(self, at: Marked | None, what: str, hint: str = "") -> None:
        """Tell a problem at a node, or of the file as a whole."""
        line, column = (at.line, at.column) if at is not None else (0, 0)
        self.at(line, column, what, hint)

    def stop(self, at: Marked | None, what: str, hint: str = "") -> NoReturn:
        """Tell a problem, and read no further.

        Raises:
            StopLoadingError: always.
        """
        self.add(at, what, hint)
        raise StopLoadingError

    def count_ranges(self, at: Marked, ranges: int) -> None:
        """Count address ranges that a rule holds.

        Raises:
            StopLoadingError: all rules together hold more than ``MAX_RANGES``.
        """
        self.problems.ranges += ranges
        if self.problems.ranges > MAX_RANGES:
            what = f"more than {MAX_RANGES:,} address ranges in all rules, tags and groups included"
            self.stop(
                at, what, "use narrower tags (Storage.EastUS), or fewer rules with large ones"
            )

    def at(self, line: int, column: int, what: str, hint: str = "") -> None:
        """Tell a problem at a place; line 0 is the file as a whole."""
        self.problems.add(Problem(self.file, line, column, _one_line(what), _one_line(hint)))


def _one_line(text: str) -> str:
    """Printable, on one line and short: what a terminal or log can take, whatever it quotes."""
    shown = text if text.isprintable() else "".join(map(_printable, text))
    return shown if len(shown) <= MAX_TEXT else shown[: MAX_TEXT - 1] + "…"


def _printable(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]

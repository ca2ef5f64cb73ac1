"""How the demo speaks: scenes, commands, what they said, and whether it was what was expected."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MAX_LINES: Final = 6
_MAX_COLUMNS: Final = 110
_GAP: Final = "  "


@dataclass(slots=True)
class Stage:
    """Prints to a console and remembers what went wrong and what was left out."""

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    passed: int = 0
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def scene(self, title: str, text: str) -> None:
        """Begin a scene: a title, and in a sentence or two what is about to be seen."""
        self.console.print()
        self.console.print(Rule(f"[bold]{escape(title)}[/]", align="left"))
        self.console.print(escape(text))

    def say(self, text: str) -> None:
        """Plain words."""
        self.console.print(escape(text))

    def command(self, argv: Sequence[str]) -> None:
        """What is being run, as a person would type it."""
        self.console.print(f"\n  [bold cyan]$ {escape(shlex.join(argv))}[/]")

    def said(self, text: str) -> None:
        """The first lines of what a program printed."""
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        for line in lines[:_MAX_LINES]:
            cut = line if len(line) <= _MAX_COLUMNS else line[: _MAX_COLUMNS - 1] + "…"
            self.console.print(f"    [dim]{escape(cut)}[/]")
        if len(lines) > _MAX_LINES:
            self.console.print(f"    [dim]… {len(lines) - _MAX_LINES} more lines[/]")

    def check(self, expected: bool, claim: str, otherwise: str = "") -> None:
        """State a claim with a tick; where it does not hold, say what was seen instead."""
        if expected:
            self.passed += 1
            self.console.print(f"    [green]✔[/] {escape(claim)}")
        else:
            self.failures.append(claim)
            seen = f": {otherwise}" if otherwise else ""
            self.console.print(f"    [bold red]✘ expected: {escape(claim + seen)}[/]")

    def skip(self, what: str, why: str) -> None:
        """Say that something is left out, and why."""
        self.skipped.append(what)
        self.console.print(f"    [yellow]- {escape(what)} left out: {escape(why)}[/]")

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table of texts, as wide as they are: a row is a line, without trailing blanks."""
        lines = [tuple(columns), *(tuple(str(cell) for cell in row) for row in rows)]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        head, *body = (escape(_GAP.join(map(str.ljust, line, widths)).rstrip()) for line in lines)
        self.console.print(f"\n[bold]{escape(title)}[/]")
        self.console.print(f"[dim]{head}[/]")
        for line in body:
            self.console.print(line)

    def curtain(self) -> int:
        """The last word; returns the exit code."""
        left_out = f", {len(self.skipped)} left out" if self.skipped else ""
        self.console.print()
        if not self.failures and not self.passed:
            return 0
        if not self.failures:
            text = f"All {self.passed} expectations held{left_out}."
            self.console.print(f"[bold green]{text}[/]")
            return 0
        self.console.print(
            f"[bold red]{len(self.failures)} of {self.passed + len(self.failures)}"
            f" expectations failed{left_out}:[/]"
        )
        for claim in self.failures:
            self.console.print(f"  - {escape(claim)}")
        return 1

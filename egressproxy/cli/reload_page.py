"""What became of a reload, for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from egressproxy.cli.findings_page import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DIGEST: Final = 12
_COLOURS: Final = {"applied": "green", "unchanged": "green", "refused": "red", "failed": "red"}
_MEANS: Final = {
    "applied": "the files are in force",
    "unchanged": "the files say what is in force already",
    "refused": "the old policy stays",
    "failed": "the old policy stays, and it is tried again",
}


def reload_page(view: Mapping[str, Any]) -> Iterator[str]:
    """Lines of what ``POST /reload`` answers, with colour codes; all of it may be a stranger's."""
    outcome = printable(str(view["outcome"]))
    word = click.style(outcome, fg=_COLOURS.get(outcome), bold=True)
    yield f"{word}: {_MEANS.get(outcome, '')}, policy {_short(view.get('digest'))}{_was(view)}"
    for change in _texts(view.get("changes")):
        yield f"  {change}"
    if error := view.get("error"):
        yield f"  {printable(str(error))}"
    problems = view.get("problems")
    for problem in problems if isinstance(problems, list) else ():
        yield f"  {_problem(problem)}"
    if outcome == "applied":
        yield f"  {_ended(view)}"


def _was(view: Mapping[str, Any]) -> str:
    previous = view.get("previous")
    return f" (was {_short(previous)})" if previous else ""


def _short(digest: object) -> str:
    return printable(str(digest or "unknown"))[:_DIGEST]


def _texts(items: object) -> Iterator[str]:
    for item in items if isinstance(items, list) else ():
        yield printable(str(item))


def _problem(problem: object) -> str:
    if not isinstance(problem, dict):
        return printable(str(problem))
    file, line, column = (problem.get(key) for key in ("file", "line", "column"))
    hint = f", hint: {problem['hint']}" if problem.get("hint") else ""
    place = f"{file}:{line}:{column}" if line else str(file)
    return printable(f"{place}: {problem.get('what')}{hint}")


def _ended(view: Mapping[str, Any]) -> str:
    ended = sum(_number(view.get(key)) for key in ("revoked", "kernel_revoked"))
    kept = sum(_number(view.get(key)) for key in ("kept", "kernel_kept"))
    took = f"in {_number(view.get('duration_ms')):,} ms by {_number(view.get('workers'))} workers"
    left = f", {kept:,} left open" if kept else ""
    return f"{took}; open flows that it denies: {ended:,} ended{left}"


def _number(value: object) -> int:
    return round(value) if isinstance(value, int | float) else 0

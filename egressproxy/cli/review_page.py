"""What ``denies`` and ``flows`` print: lines laid out for a terminal, or one row each in a pipe.

On a terminal a line of the report takes one row or more: what there is no room for goes below.
Nothing is cut off, because names are copied from here. In a pipe every line is one row of columns
that ``grep``, ``sort`` and ``awk`` understand, without colours, with whole times. Whatever a peer
chose is printed so that it moves no cursor.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from egressproxy.policy.verdict import Reason
from egressproxy.review.formats import printable, stamp
from egressproxy.review.model import Class, Group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from egressproxy.review.model import ReviewLine
    from egressproxy.review.report import Report

GAP: Final = "  "
MIN_NAME: Final = 40
"""Columns that the last column, the name, has to itself before others are left out."""
MAX_CELL: Final = 24
"""Columns of a cell in between, beyond which it pushes its row to the right."""
MAX_NAME: Final = 44
"""Columns of the name beyond which words do not stand beside it."""
MAX_SAMPLE: Final = 3
"""Names that a line of something else gives as an example."""
MIN_WORDS: Final = 36
"""Columns that words need beside a name; with less they go below it."""

COLOURS: Final[dict[Class, str]] = {
    Class.SUSPICIOUS: "red",
    Class.MISSING_REQUIREMENT: "yellow",
    Class.NEAR_MISS: "cyan",
    Class.UNKNOWN: "magenta",
    Class.OPTIONAL: "blue",
    Class.HARMLESS: "green",
}


class Column(NamedTuple):
    """A column: its heading, a cell for each line, and how it goes when there is little room.

    ``weight`` 0 is always there; of others the highest is left out first.
    """

    title: str
    cell: Callable[[ReviewLine], str]
    is_number: bool = False
    weight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a report is laid out.

    ``width`` is the terminal's columns, ``None`` for a pipe. ``by`` and ``is_denied`` choose the
    columns. ``has_classes`` puts lines under their class on a terminal, in a pipe beside it.
    """

    width: int | None
    by: Group
    now: float
    is_denied: bool = True
    has_classes: bool = False


def rows(report: Report, layout: Layout) -> Iterator[str]:
    """The rows of a report with a heading, for stdout; with colour codes, where on a terminal."""
    columns = _columns(report.lines, layout)
    table = _Table.of(columns, report.lines, layout)
    yield click.style(table.heading(), dim=True) if layout.width else table.heading()
    above: Class | None = None
    said_above = ""
    for line in report.lines:
        kind = line.finding.kind if line.finding else None
        if layout.has_classes and layout.width and kind is not None and kind is not above:
            if above is not None:
                yield ""
            yield _class_heading(kind, report, layout)
            above, said_above = kind, ""
        said = words(line, layout)
        is_again = layout.width is not None and said == said_above
        yield from table.rows(line, "" if is_again else said)
        said_above = said


def _class_heading(kind: Class, report: Report, layout: Layout) -> str:
    found = next(each for each in report.classes if each.kind is kind)
    counts = f"  {number(found.lines, layout.by)}, {number(found.flows, 'flow')}"
    return click.style(kind.value, fg=COLOURS[kind], bold=True) + click.style(counts, dim=True)


def summary(report: Report) -> str:
    """The sums in one row."""
    totals = report.totals
    said = [number(totals.flows, "flow"), number(totals.targets, "name")]
    said.append(f"from {number(totals.sources, 'source')}")
    if totals.gateways > 1:
        said.append(f"at {number(totals.gateways, 'gateway')}")
    return ", ".join(said)


def classes_row(report: Report) -> str:
    """How many lines are of which class, in one row, coloured."""
    return " · ".join(
        f"{click.style(each.kind.value, fg=COLOURS[each.kind])} {each.lines:,}"
        for each in report.classes
    )


def number(count: int, what: str) -> str:
    """A count with its noun."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


# Columns


def _columns(lines: Sequence[ReviewLine], layout: Layout) -> list[Column]:
    """Numbers and times first, as ``ls -l`` has them: a name may be as long as it likes."""
    when = _clock(lines, layout)
    by = layout.by
    columns = []
    if layout.width is None and layout.has_classes:
        columns.append(Column("CLASS", lambda line: line.finding.kind if line.finding else "-"))
    columns.append(Column("FLOWS", lambda line: f"{line.count:,}", is_number=True))
    if by is not Group.NAME or any(line.target_count > 1 for line in lines):
        is_told = by is not Group.NAME or layout.width is None
        columns.append(
            Column("NAMES", lambda line: _names_in(line, is_told=is_told), is_number=True)
        )
    if by not in (Group.NAME, Group.SOURCE):
        columns.append(Column("SOURCES", lambda line: f"{line.sources:,}", is_number=True))
    if not layout.is_denied:
        columns.append(Column("UP", lambda line: size(line.bytes_up), is_number=True, weight=1))
        columns.append(Column("DOWN", lambda line: size(line.bytes_down), is_number=True, weight=1))
    columns.append(Column("FIRST", lambda line: when(line.first_at), weight=2))
    columns.append(Column("LAST", lambda line: when(line.last_at)))
    if by is Group.NAME:
        columns.append(Column("PORT", lambda line: _first(_known(line.ports), len(line.ports))))
        columns.append(Column("FROM", lambda line: _first(line.source_sample, line.sources)))
    columns.append(Column(by.upper(), lambda line: printable(line.key)))
    return columns


def _names_in(line: ReviewLine, *, is_told: bool) -> str:
    """How many names a line stands for; one is only told where columns are counted."""
    return f"{line.target_count:,}" if is_told or line.target_count > 1 else ""


def _first(texts: Sequence[str], count: int) -> str:
    """The first of some, and how many others there are."""
    if not texts:
        return "-"
    return printable(texts[0]) + (f" +{count - 1:,}" if count > 1 else "")


def _known(ports: Sequence[str]) -> list[str]:
    """Ports without those of clients that never said one (``tls:0``)."""
    return [port for port in ports if not port.endswith(":0")]


def _clock(lines: Iterable[ReviewLine], layout: Layout) -> Callable[[float], str]:
    """How moments are written: whole in a pipe, else as short as they stay clear."""
    if layout.width is None:
        return stamp
    today = _day(layout.now)
    if all(_day(line.first_at) == today == _day(line.last_at) for line in lines):
        return lambda at: datetime.fromtimestamp(at, UTC).strftime("%H:%M")
    year = today[:4]
    if all(_day(line.first_at)[:4] == year for line in lines):
        return lambda at: datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M")
    return lambda at: datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def size(octets: int) -> str:
    """Octets, short: ``980``, ``12.3K``, ``4.0G`` (of 1024)."""
    amount = float(octets)
    for unit in ("", "K", "M", "G", "T"):
        if amount < 1000:
            return f"{octets}" if not unit else f"{amount:.1f}{unit}"
        amount /= 1024
    return f"{amount:.1f}P"


# Words


def words(line: ReviewLine, layout: Layout) -> str:
    """What there is to say of a line besides its numbers: why, what one sees, of what it is."""
    if layout.by is not Group.NAME:
        said = [*_alarm(line, layout), _sample(line.targets, line.target_count)]
    elif layout.is_denied:
        said = [*_why(line, layout), _passed(line)]
    else:
        said = [*line.rules, *(reason for reason in line.reasons if reason != Reason.RULE)]
    return printable("; ".join(text for text in said if text))


def _why(line: ReviewLine, layout: Layout) -> list[str]:
    finding = line.finding
    if finding is None:
        return [line.note, *line.reasons]
    if layout.has_classes:  # it stands above or beside
        return [finding.why, finding.symptom]
    return [": ".join(text for text in (finding.kind, finding.why) if text), finding.symptom]


def _alarm(line: ReviewLine, layout: Layout) -> list[str]:
    """What makes a source suspicious."""
    finding = line.finding
    is_one = layout.by is Group.SOURCE and finding and finding.kind is Class.SUSPICIOUS
    return [finding.why] if is_one and finding else []


def _passed(line: ReviewLine) -> str:
    """That flows were not refused, but would have been."""
    if not line.audited:
        return ""
    how = "as first seen" if Reason.NEW_NAME in line.reasons else "by audit"
    return f"let pass {how}" + ("" if line.audited == line.count else f": {line.audited:,}")


def _words_title(layout: Layout) -> str:
    if layout.by is not Group.NAME:
        return "SUCH AS"
    return "WHY" if layout.is_denied else "RULE"


def _sample(texts: Sequence[str], count: int) -> str:
    shown = texts[:MAX_SAMPLE]
    more = count - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


# The table


@dataclass(frozen=True, slots=True)
class _Table:
    """Columns with their widths; ``words_at`` is where words begin beside a row, 0 below it."""

    columns: tuple[Column, ...]
    widths: tuple[int, ...]
    width: int | None
    words_at: int
    words_title: str

    @classmethod
    def of(cls, columns: list[Column], lines: Sequence[ReviewLine], layout: Layout) -> _Table:
        widths = {each: _width(each, lines, MAX_CELL) for each in columns[:-1]}
        widths[columns[-1]] = _width(columns[-1], lines, MAX_NAME)
        shown = columns
        if layout.width is not None:
            shown = _fitting(columns, widths, layout.width)
        taken = sum(widths[each] + len(GAP) for each in shown)
        is_beside = layout.width is None or layout.width - taken >= MIN_WORDS
        return cls(
            tuple(shown),
            tuple(widths[each] for each in shown),
            layout.width,
            taken if is_beside else 0,
            _words_title(layout),
        )

    def heading(self) -> str:
        row = self._row([each.title for each in self.columns])
        return (row + (GAP + self.words_title if self.words_at else "")).rstrip()

    def rows(self, line: ReviewLine, said: str) -> Iterator[str]:
        row = self._row([each.cell(line) for each in self.columns])
        if self.width is None:
            yield (row + GAP + said).rstrip()
            return
        begin = self.words_at or self.widths[0] + len(GAP)
        below = _wrapped(said, max(self.width - begin, MIN_WORDS))
        if below and self.words_at and len(row.rstrip()) < self.words_at - 1:
            row = row.ljust(self.words_at) + click.style(below.pop(0), dim=True)
        yield row.rstrip()
        for text in below:
            yield " " * begin + click.style(text, dim=True)

    def _row(self, cells: Sequence[str]) -> str:
        return GAP.join(
            f"{cell:>{width}}" if column.is_number else f"{cell:<{width}}"
            for column, cell, width in zip(self.columns, cells, self.widths, strict=True)
        )


def _width(column: Column, lines: Sequence[ReviewLine], most: int) -> int:
    """What a column needs, but for cells that are too long to count."""
    cells = (len(column.cell(line)) for line in lines)
    return max([len(column.title), *(cell for cell in cells if cell <= most)])


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _fitting(columns: list[Column], widths: dict[Column, int], width: int) -> list[Column]:
    """The columns that leave a name its room."""
    shown = list(columns)
    for weight in sorted({each.weight for each in columns if each.weight}, reverse=True):
        if sum(widths[each] + len(GAP) for each in shown[:-1]) + MIN_NAME <= width:
            break
        shown = [each for each in shown if each.weight != weight]
    return shown

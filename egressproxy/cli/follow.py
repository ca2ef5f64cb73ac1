"""``--follow``: records as they are stored, a row each, until interrupted."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from egressproxy.cli.listing import colour, terminal_width
from egressproxy.cli.review_page import COLOURS
from egressproxy.review import queries
from egressproxy.review.formats import printable, record_as_json, stamp
from egressproxy.review.report import target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from egressproxy.cli.store_option import Records
    from egressproxy.review.model import Filter, Finding, StoredRecord
    from egressproxy.review.report import Findings

POLL_S: Final = 0.5
"""Between two looks at the store, which itself is a second behind the flows."""
_BATCH: Final = 1000
_BEFORE: Final = 10  # records that are shown to begin with, as tail(1) does


def follow(
    records: Records,
    where: Filter,
    classifier: Findings | None,
    *,
    is_json: bool,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Print the last few records that are meant, then each as it comes; Ctrl-C ends it well.

    Args:
        records: where they come from.
        where: ``until`` and ``since`` count for what is there already only.
        classifier: for the classes of denies.
        is_json: a JSON object a line.
        wait: called between two looks.

    Raises:
        StoreError: the store cannot be read any more.
    """
    write = _as_json if is_json else _as_text
    width = None if is_json else terminal_width()
    try:
        for record in _records(records, where, wait):
            finding = None
            if classifier is not None and record.subject.is_denied:
                finding = classifier.finding(record.subject)
            if finding is not None and where.classes and finding.kind not in where.classes:
                continue
            click.echo(write(record, finding, width), color=colour())
            sys.stdout.flush()  # whoever reads the pipe waits for it
    except KeyboardInterrupt:
        click.echo(err=True)


def _records(
    records: Records, where: Filter, wait: Callable[[float], None]
) -> Iterator[StoredRecord]:
    """What is there, oldest first, then what comes."""
    newest = queries.newest_id(records.store)
    yield from reversed(queries.records(records.store, where, limit=_BEFORE))
    live = replace(where, since=None, until=None)
    while True:
        records.refresh(time.time())
        found = queries.records(records.store, live, limit=_BATCH, after_id=newest)
        yield from found
        if found:
            newest = found[-1].id
        if len(found) < _BATCH:
            wait(POLL_S)


def _as_json(record: StoredRecord, finding: Finding | None, _width: int | None) -> str:
    return json.dumps(record_as_json(record, finding))


def _as_text(record: StoredRecord, finding: Finding | None, width: int | None) -> str:
    """A row: when, what became of it, from where to where, why."""
    subject = record.subject
    at = stamp(record.at)
    if width is not None:
        at = datetime.fromtimestamp(record.at, UTC).strftime("%H:%M:%S")
    action = "audit" if subject.would_deny else str(subject.action)
    colours = {"deny": "red", "audit": "yellow", "error": "magenta", "allow": "green"}
    words = [str(subject.reason)]
    if finding is not None:
        kind = click.style(finding.kind.value, fg=COLOURS[finding.kind])
        words.append(f"{kind}: {printable(finding.why)}" if finding.why else kind)
    elif subject.rule:
        words.append(printable(subject.rule))
    return "  ".join(
        [
            at,
            click.style(f"{action:<5}", fg=colours[action]),
            f"{printable(subject.src_ip):<15}",
            f"{printable(target_of(subject))} {printable(subject.protocol)}:{subject.dst_port}"
            + (f" x{record.count:,}" if record.count > 1 else ""),
            *words,
        ]
    )

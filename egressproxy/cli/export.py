"""``egressproxy export``: records of logs in the forms that others read, once."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

import click

from egressproxy.cli.main import EXIT_ERROR
from egressproxy.errors import EgressproxyError, ServiceError
from egressproxy.export.opening import open_outlet
from egressproxy.export.outlet import MAX_WAITING, parse_target
from egressproxy.export.record_schema import record_schema
from egressproxy.observe.log_file import DAMAGED, STDIN, Lines, opened
from egressproxy.observe.read import read_line
from egressproxy.observe.record import to_json_line
from egressproxy.service.options import host_name, parse_gateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from egressproxy.export.outlet import Outlet, Target
    from egressproxy.observe.record import FlowRecord

EXAMPLES: Final = """\b
egressproxy export --format azure flows.jsonl flows.jsonl.*.gz > rows.jsonl
egressproxy export --to syslog:tls://siem.example --gateway hub-2 flows.jsonl
ssh hub-2 cat /var/log/egressproxy/flows.jsonl | egressproxy export --format syslog -
egressproxy export --schema > flow-record.schema.json
"""
FORMATS: Final = ("json", "azure", "syslog")
BATCH: Final = 500
PATIENCE_S: Final = 30.0
"""How long a receiver may take nothing before the export is given up."""
MAX_BAD_SHOWN: Final = 5
_POLL_S: Final = 0.02


@click.command(epilog=EXAMPLES)
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--to", "place", metavar="TARGET", help="Deliver them; targets as of run --export.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Print them, a line each.")
@click.option("--gateway", metavar="NAME", help="Whose log it is. Default: this host's name.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a record instead.")
def command(
    files: tuple[str, ...],
    place: str | None,
    form: str | None,
    gateway: str | None,
    *,
    schema: bool,
) -> None:
    """Convert record logs to what others read, or deliver them there, once.

    Logs are plain or gzip; - is stdin. Lines that are no records are counted on stderr and left
    out. Ends with 2 if a file could not be read to its end, or a record not delivered.
    """
    if schema:
        click.echo(json.dumps(record_schema(), indent=2))
        return
    if not files:
        raise click.UsageError("which log? Give a FILE, or - for stdin")
    if (place is None) == (form is None):
        raise click.UsageError("give either --to TARGET or --format FORMAT")
    name = host_name() if gateway is None else parse_gateway(gateway)
    logs = [_Log(file) for file in files]
    records = chain.from_iterable(log.records() for log in logs)
    if place is not None:
        target = parse_target(place)
        delivered = _deliver(records, target, name)
        click.echo(f"{delivered:,} records delivered to {target}", err=True)
    elif form is not None:
        _print(records, _writer(form, name))
    if any(log.problem for log in logs):
        sys.exit(EXIT_ERROR)


@dataclass(slots=True)
class _Log:
    """One log, and what was wrong with it."""

    path: str
    bad: int = 0
    bad_lines: tuple[int, ...] = ()
    problem: str = ""

    def records(self) -> Iterator[FlowRecord]:
        """Its records; what is wrong is told at its end."""
        if self.path == STDIN and sys.stdin.isatty():
            click.echo("reading records from the terminal; Ctrl-D ends them", err=True)
        try:
            with opened(self.path) as file:
                yield from self._records(Lines(file))
        except DAMAGED as error:
            self.problem = f"damaged or not complete: {error}"
        except OSError as error:
            self.problem = f"cannot be read: {error.strerror or error}"
        if self.bad:
            lines = ", ".join(map(str, self.bad_lines))
            more = ", …" if self.bad > MAX_BAD_SHOWN else ""
            what = "line is no record" if self.bad == 1 else "lines are no records"
            click.echo(f"warning: {self.path}: {self.bad:,} {what} (line {lines}{more})", err=True)
        if self.problem:
            click.echo(f"egressproxy: {self.path}: {self.problem}", err=True)

    def _records(self, lines: Lines) -> Iterator[FlowRecord]:
        while line := lines.next():
            record = read_line(line)
            if record is not None:
                yield record
            elif line.strip():
                self.bad += 1
                if len(self.bad_lines) < MAX_BAD_SHOWN:
                    self.bad_lines += (lines.number,)


def _writer(form: str, gateway: str) -> Callable[[FlowRecord], bytes]:
    """What makes a line of a record."""
    if form == "azure":
        from egressproxy.export.azure import azure_row
        from egressproxy.export.azure_files import row_line

        return lambda record: row_line(azure_row(record)).encode("ascii")
    if form == "syslog":
        from egressproxy.export.syslog_message import SyslogFormat

        messages = SyslogFormat(gateway, version("egressproxy"))
        return lambda record: messages.message(record) + b"\n"
    return to_json_line


def _print(records: Iterator[FlowRecord], write: Callable[[FlowRecord], bytes]) -> None:
    stdout = sys.stdout.buffer
    for batch in _batches(records):
        stdout.write(b"".join(map(write, batch)))
    stdout.flush()


def _deliver(records: Iterator[FlowRecord], target: Target, gateway: str) -> int:
    """Deliver all records; how many they were.

    Raises:
        ServiceError: the target cannot be opened, or does not take them.
    """
    outlet = open_outlet(
        target, gateway=gateway, version=version("egressproxy"), rotate_bytes=0, rotate_files=1
    )
    taken = 0
    try:
        for batch in _batches(records):
            outlet.take(batch)
            taken += len(batch)
            _wait(outlet, MAX_WAITING - BATCH)
        _wait(outlet, 0)
    except EgressproxyError as error:
        outlet.close()
        arrived = taken - outlet.lost
        raise ServiceError(
            f"{target}: {error.message}; {arrived:,} records were delivered"
        ) from error
    except BaseException:
        outlet.close()
        raise
    outlet.close()
    return taken


def _batches(records: Iterator[FlowRecord]) -> Iterable[list[FlowRecord]]:
    while batch := list(islice(records, BATCH)):
        yield batch


def _wait(outlet: Outlet, most: int) -> None:
    """Wait until no more than so many records wait, as long as they become fewer.

    Raises:
        ServiceError: they do not, or one was lost.
    """
    fewest, since = outlet.waiting, time.monotonic()
    while True:
        if outlet.lost:
            raise ServiceError(outlet.trouble or "records were lost")
        waiting, now = outlet.waiting, time.monotonic()
        if waiting <= most:
            return
        if waiting < fewest:
            fewest, since = waiting, now
        elif now - since > PATIENCE_S:
            raise ServiceError(outlet.trouble or "it takes no records")
        time.sleep(_POLL_S)

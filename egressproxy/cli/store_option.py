"""Where a command finds records: a store, or logs that are read into one for as long as it runs."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from egressproxy.errors import EgressproxyError, StoreError
from egressproxy.review.bounds import Bounds
from egressproxy.review.importing import MAX_BAD_SHOWN, import_file
from egressproxy.review.schema import DAY_S
from egressproxy.review.store import Store, open_store
from egressproxy.review.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from egressproxy.review.importing import Imported

STORE_VARIABLE: Final = "EGRESSPROXY_REVIEW_STORE"
DEFAULT_STORE: Final = Path("/var/lib/egressproxy/review.db")
DEFAULT_LOG: Final = Path("/var/log/egressproxy/flows.jsonl")
STDIN: Final = Path("-")

_LOG_BOUNDS: Final = Bounds(
    max_bytes=1 << 50,
    subjects_per_source_hour=1 << 20,
    subjects_per_hour=1 << 22,
    records_per_source_hour=1 << 30,
)
"""Of a store that lives as long as a command: a log was written with its own bounds."""

_FOREVER_DAYS: Final = 36_600
_SAID_BYTES: Final = 20_000_000  # takes some seconds

store_option: Final = click.option(
    "--store",
    metavar="PLACE",
    envvar=STORE_VARIABLE,
    show_envvar=True,
    help=f"The review store: a path or a postgresql:// URL. Default: {DEFAULT_STORE}.",
)


@dataclass(slots=True)
class Records:
    """Records at hand: ``store`` answers, ``place`` says for people what it was made of.

    ``skipped`` records of logs were older than wanted, and not read.
    """

    store: Store
    place: str
    skipped: int = 0
    _writer: Writer | None = None
    _logs: tuple[Path, ...] = field(default=())

    @property
    def is_of_logs(self) -> bool:
        """Whether they were read from logs, for this command alone."""
        return bool(self._logs)

    def refresh(self, now: float) -> None:
        """Read what logs have more by now; a store is up to date by itself."""
        for log in self._logs:
            if self._writer is not None and log != STDIN:
                with contextlib.suppress(StoreError):  # rotated away just now: next time
                    import_file(self._writer, str(log), now=now)


@dataclass(frozen=True, slots=True)
class Place:
    """What the user said: a store, or logs, or neither."""

    store: str | None
    logs: tuple[Path, ...]

    @contextlib.contextmanager
    def opened(self, *, now: float, since: float | None) -> Iterator[Records]:
        """The records, as long as the block runs; of logs only those since about then.

        Raises:
            EgressproxyError: there are none to be had; the hint says what to give.
        """
        if self.logs:
            with _of_logs(self.logs, now, since) as records:
                yield records
        else:
            place = self.store or default_place()
            with open_store(place, is_reader=True) as store:
                yield Records(store, store.place)


def place_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--store`` and ``--log FILE [FILE]...``, and its function a ``Place``."""

    @store_option
    @click.option(
        "--log",
        "logs",
        multiple=True,
        metavar="FILE",
        type=click.Path(path_type=Path, allow_dash=True),
        help="Read logs instead of a store, gzip too, - for stdin; several: --log FILE FILE.",
    )
    @click.argument("more_logs", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path))
    @functools.wraps(command)
    def with_place(
        *args: Any,
        store: str | None,
        logs: tuple[Path, ...],
        more_logs: tuple[Path, ...],
        **kwargs: Any,
    ) -> None:
        command(*args, place=place_of(store, (*logs, *more_logs)), **kwargs)

    return with_place


def place_of(store: str | None, logs: tuple[Path, ...]) -> Place:
    """What options mean together.

    Raises:
        click.UsageError: a store and logs, or a file that does not exist.
    """
    context = click.get_current_context()
    given = context.get_parameter_source("store") is click.core.ParameterSource.COMMANDLINE
    if logs and given and store is not None:
        raise click.UsageError("--store and logs: give one of them")
    for log in logs:
        if log != STDIN and not log.exists():
            is_name = log.parent == Path() and "." in log.name and "*" not in log.name
            hint = f"; is --name {log} meant?" if is_name else ""
            raise click.UsageError(f"there is no file {str(log)!r}{hint}")
    return Place(store, logs)


@contextlib.contextmanager
def _of_logs(logs: tuple[Path, ...], now: float, since: float | None) -> Iterator[Records]:
    days = _FOREVER_DAYS if since is None else int((now - since) / DAY_S) + 1
    with (
        tempfile.TemporaryDirectory(prefix="egressproxy-review-") as folder,
        open_store(str(Path(folder) / "review.db")) as store,
    ):
        bounds = replace(_LOG_BOUNDS, max_age_days=days)
        writer = Writer(store, gateway="log", bounds=bounds)
        skipped = sum(_read(writer, log, now) for log in logs)
        yield Records(store, ", ".join(map(str, logs)), skipped, writer, logs)


def _read(writer: Writer, log: Path, now: float) -> int:
    """Read a log, say what is odd about it, and give how many records were too old."""
    if log == STDIN and sys.stdin.isatty():
        click.echo("reading records from the terminal; Ctrl-D ends them", err=True)
    elif sys.stderr.isatty() and log.is_file() and log.stat().st_size > _SAID_BYTES:
        click.echo(f"reading {log}, {log.stat().st_size / 1e6:,.0f} MB", err=True)
    done = import_file(writer, str(log), now=now)
    for warning in warnings_of(log, done):
        click.echo(f"warning: {warning}", err=True)
    return done.skipped


def warnings_of(log: Path, done: Imported) -> Iterator[str]:
    """What is odd about a log that was read."""
    if done.bad:
        lines = ", ".join(map(str, done.bad_lines)) + (", …" if done.bad > MAX_BAD_SHOWN else "")
        what = "line is no record" if done.bad == 1 else "lines are no records"
        yield f"{log}: {done.bad:,} {what} (line {lines})"
    if done.problem:
        yield f"{log}: {done.problem}"
    if not (done.read or done.bad or done.skipped or done.known_bytes):
        yield f"{log}: no records in it"


def default_place(*, hint: str | None = None) -> str:
    """The store of the gateway on this machine; ``hint`` says what to do where there is none."""
    try:
        os.stat(DEFAULT_STORE)  # noqa: PTH116 - exists() hides that it may not be looked at
    except PermissionError:
        pass  # opening it says so, with a hint
    except OSError:
        log = DEFAULT_LOG if DEFAULT_LOG.exists() else "FILE"
        raise EgressproxyError(
            f"there is no review store: neither --store nor {STORE_VARIABLE}, nor {DEFAULT_STORE}",
            hint=hint
            or f"--log {log} reads a log without one; a gateway keeps one with --review-store",
        ) from None
    return str(DEFAULT_STORE)

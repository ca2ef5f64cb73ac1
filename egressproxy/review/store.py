"""``open_store``: the database of the review, SQLite by a path or PostgreSQL by a URL.

It knows connections, transactions, the schema's version, and how to say what went wrong without a
password in it. One transaction writes at a time, in either database, so that ids grow in the order
in which rows appear. A reader changes nothing and creates nothing.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from sqlalchemy import func, insert, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from egressproxy.errors import StoreError
from egressproxy.review import schema
from egressproxy.review.postgresql_url import (
    copy_rows,
    postgresql_engine,
    postgresql_url,
    secrets_of,
    shown,
)
from egressproxy.review.sqlite_file import keep_log, look_at_file, sqlite_engine
from egressproxy.review.store_fault import fault_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from sqlalchemy import Connection, Engine, Table
    from sqlalchemy.sql.functions import Function

_URL: Final = re.compile(r"[a-z][a-z0-9+]*://", re.ASCII)
_ADVISORY: Final = 0x65677265_73737078
"""PostgreSQL's advisory lock of whoever writes: "egresspx", no other meaning."""


class Store:
    """An open store; its methods may be called from any thread, also at the same time."""

    def __init__(
        self,
        engine: Engine,
        place: str,
        *,
        is_reader: bool,
        file: Path | None = None,
        secrets: tuple[str, ...] = (),
    ) -> None:
        self._engine = engine
        self._secrets = secrets
        self._file = file
        self._identity: tuple[int, int] | None = None
        self._reading = engine.execution_options(reads=True)
        self.place = place
        """Where it is, for people: no password in it."""
        self.is_reader = is_reader
        self.dialect: Final = engine.dialect.name
        """``sqlite`` or ``postgresql``."""

    def __enter__(self) -> Self:
        """Close at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that writes: all or nothing, the only one at its time.

        Raises:
            StoreError: it could not begin, go on or end; then nothing was written. Of a file that
                is not the one that was opened the code is ``missing``: what was remembered of its
                rows is worth nothing, so it has to be opened anew.
        """
        if self._is_gone():
            self._engine.dispose()
            raise self._gone()
        with self._faults(), self._engine.begin() as connection:
            if self.dialect == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY})
            yield connection

    @contextlib.contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection to ask questions on; all see the same moment in SQLite.

        Raises:
            StoreError: a question could not be asked or answered.
        """
        if self._is_gone():
            self._look_again()
        with self._faults(), self._reading.connect() as connection:
            yield connection

    def insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        """An insert that knows ``on_conflict_do_update``."""
        if self.dialect == "postgresql":
            return postgresql.insert(table)
        return sqlite.insert(table)

    def add_rows(
        self, connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Insert rows that have the same columns, in whichever way is fastest."""
        if not rows:
            return
        if self.dialect == "postgresql":
            copy_rows(connection, table, rows)
        else:
            connection.execute(table.insert(), rows)

    def least(self, *values: Any) -> Function[Any]:
        """The smallest of some columns or values."""
        return _scalar("least" if self.dialect == "postgresql" else "min", *values)

    def greatest(self, *values: Any) -> Function[Any]:
        """The largest of some columns or values."""
        return _scalar("greatest" if self.dialect == "postgresql" else "max", *values)

    def close(self) -> None:
        """Let go of all connections; it can be used again, and then opens new ones."""
        self._engine.dispose()

    def watch_file(self) -> None:
        """From now on nothing is written into, or read from, a file that is no longer there."""
        self._identity = _identity(self._file)

    def _is_gone(self) -> bool:
        return self._identity is not None and _identity(self._file) != self._identity

    def _look_again(self) -> None:
        """Go on with the file that is at the place now; a writer has to open it anew."""
        self._engine.dispose()
        now = _identity(self._file)
        if now is None or not self.is_reader:
            raise self._gone()
        before, self._identity = self._identity, now
        try:
            _prepare(self)
        except BaseException:
            self._identity = before
            raise

    def _gone(self) -> StoreError:
        return StoreError(
            f"the review store {self.place} was moved, deleted or replaced",
            hint="the gateway makes a new one",
            code="missing",
        )

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise fault_of(error.orig or error, self.place, self._secrets) from error
        except sqlite3.Error as error:  # where the driver was asked directly
            raise fault_of(error, self.place) from error
        except PoolTimeoutError as error:
            raise StoreError(
                f"review store {self.place}: too many questions at once", code="busy"
            ) from error


def open_store(place: str, *, is_reader: bool = False) -> Store:
    """Open the store at a path or a ``postgresql://`` URL, and make it where there is none.

    Args:
        place: a URL's password may also come from ``PGPASSWORD`` or ``~/.pgpass``.
        is_reader: never write and never create.

    Raises:
        StoreError: it cannot be reached or made, is not a store, or is of a later version.
    """
    path = None
    if _URL.match(place):
        url = postgresql_url(place)
        engine, where = postgresql_engine(url, is_reader=is_reader), shown(url)
        secrets = secrets_of(url)
    else:
        path = Path(place)
        look_at_file(path, is_reader=is_reader)
        engine, where = sqlite_engine(path, is_reader=is_reader), place
        secrets = ()
    store = Store(engine, where, is_reader=is_reader, file=path, secrets=secrets)
    try:
        _prepare(store)
    except BaseException:
        store.close()
        raise
    store.watch_file()
    return store


# The schema


def _prepare(store: Store) -> None:
    with store.connect() as connection:
        if _is_ours(connection, store.place):
            return
    if store.is_reader:
        raise StoreError(
            f"{store.place} holds no records yet",
            hint="the gateway makes it when it starts with --review-store, or import a log",
            code="missing",
        )
    if store.dialect == "sqlite":
        with store.connect() as connection:
            keep_log(connection)
    with store.begin() as connection:
        if not _is_ours(connection, store.place):  # another process may have been faster
            schema.metadata.create_all(connection, checkfirst=False)
            connection.execute(
                insert(schema.meta),
                [
                    {"key": "schema_version", "value": str(schema.VERSION)},
                    {"key": "pruned", "value": "0"},
                ],
            )


def _identity(file: Path | None) -> tuple[int, int] | None:
    """What tells a file from others of its name; ``None`` of an empty one, and where is none."""
    try:
        status = file.stat() if file is not None else None
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status is not None and status.st_size else None


def _is_ours(connection: Connection, place: str) -> bool:
    """Whether the schema is there; false where there is nothing yet."""
    tables = set(inspect(connection).get_table_names())
    ours = set(schema.metadata.tables)
    if not tables & ours and (connection.dialect.name == "postgresql" or not tables):
        return False
    foreign = StoreError(
        f"{place} is a database of something else",
        hint="give a path that does not exist yet, or a database of its own",
        code="foreign",
    )
    if not ours <= tables:
        raise foreign
    asked = select(schema.meta.c.value).where(schema.meta.c.key == "schema_version")
    try:
        version = int(connection.execute(asked).scalar() or "")
    except (DBAPIError, ValueError) as error:
        raise foreign from error
    if version != schema.VERSION:
        raise StoreError(
            f"{place} has schema {version}, this egressproxy knows {schema.VERSION}",
            hint="use the egressproxy that wrote it, or a newer one",
            code="newer",
        )
    return True


def _scalar(name: str, *values: Any) -> Function[Any]:
    made: Function[Any] = getattr(func, name)(*values)
    return made

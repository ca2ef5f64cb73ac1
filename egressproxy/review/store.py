"""``open_store``: the database of the review, SQLite by a path or PostgreSQL by a URL.

It knows connections, transactions, the schema's version, and how to say what went wrong without a
password in it. One transaction writes at a time, in either database, so that ids grow in the order
in which rows appear. A reader changes nothing and creates nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from sqlalchemy import (
    URL,
    Engine,
    create_engine,
    event,
    func,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool, QueuePool

from egressproxy.errors import StoreError
from egressproxy.review import schema
from egressproxy.review.store_fault import fault_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from sqlalchemy import Connection, Table
    from sqlalchemy.sql.functions import Function

_URL: Final = re.compile(r"[a-z][a-z0-9+]*://", re.ASCII)
_POSTGRESQL: Final = {"postgresql", "postgres", "postgresql+psycopg"}
_FILE_MODE: Final = 0o640
_NO_LOG: Final = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
_MAGIC: Final = b"SQLite format 3\0"
_WAIT_S: Final = 10
"""How long a transaction waits for another's lock."""
_CONNECT_S: Final = 5
_ADVISORY: Final = 0x65677265_73737078
"""PostgreSQL's advisory lock of whoever writes: "egresspx", no other meaning."""

_EXAMPLE: Final = "postgresql://USER:PASSWORD@HOST/DATABASE, each part percent-encoded"
_UNREADABLE: Final = "the review store's URL cannot be read"
_NO_DRIVER: Final = "this egressproxy has no driver for PostgreSQL"


class Store:
    """An open store; its methods may be called from any thread, also at the same time."""

    def __init__(
        self, engine: Engine, place: str, *, is_reader: bool, secrets: tuple[str, ...] = ()
    ) -> None:
        self._engine = engine
        self._secrets = secrets
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
            StoreError: it could not begin, go on or end; then nothing was written.
        """
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
        with self._faults(), self._reading.connect() as connection:
            yield connection

    def insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        """An insert that knows ``on_conflict_do_update``."""
        if self.dialect == "postgresql":
            return postgresql.insert(table)
        return sqlite.insert(table)

    def least(self, *values: Any) -> Function[Any]:
        """The smallest of some columns or values."""
        return _scalar("least" if self.dialect == "postgresql" else "min", *values)

    def greatest(self, *values: Any) -> Function[Any]:
        """The largest of some columns or values."""
        return _scalar("greatest" if self.dialect == "postgresql" else "max", *values)

    def close(self) -> None:
        """Let go of all connections; it can be used again, and then opens new ones."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise fault_of(error, self.place, self._secrets) from error
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
    if _URL.match(place):
        url = _postgresql_url(place)
        engine, shown = _postgresql_engine(url, is_reader=is_reader), _shown(url)
        secrets = _secrets(url)
    else:
        path = Path(place)
        _look_at_file(path, is_reader=is_reader)
        engine, shown = _sqlite_engine(path, is_reader=is_reader), place
        secrets = ()
    store = Store(engine, shown, is_reader=is_reader, secrets=secrets)
    try:
        _prepare(store)
    except BaseException:
        store.close()
        raise
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
            # Not in a transaction. The mode stays with the file.
            _raw(connection).execute("PRAGMA journal_mode=WAL")
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


# SQLite


def _look_at_file(path: Path, *, is_reader: bool) -> None:
    """Make the file with its mode, or say why it cannot be a store, before SQLite touches it."""
    flags = os.O_RDONLY if is_reader else os.O_RDWR | os.O_CREAT
    try:
        fd = os.open(path, flags | os.O_CLOEXEC, _FILE_MODE)
    except FileNotFoundError as error:
        raise StoreError(
            f"there is no review store at {path}",
            hint="start the gateway with --review-store, or egressproxy review import FILE"
            if is_reader
            else f"make the folder first: {path.parent}",
            code="missing",
        ) from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StoreError(
            f"the review store {path} cannot be opened: {why}",
            hint="the file and its folder must belong to the service's user",
            code="permission",
        ) from error
    with os.fdopen(fd, "rb") as file:
        head = file.read(len(_MAGIC))
    if head not in (b"", _MAGIC):
        raise StoreError(
            f"{path} is not a review store",
            hint="give a path that does not exist yet",
            code="foreign",
        )


def _sqlite_engine(path: Path, *, is_reader: bool) -> Engine:
    def connect() -> sqlite3.Connection:
        connection = _reading(path) if is_reader else _connected(path, "mode=rw")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA cache_size=-32768")  # KiB
        if is_reader:
            connection.execute("PRAGMA query_only=ON")
        else:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # heeded before the first table
            # WAL with NORMAL: a killed process loses nothing that was committed; a machine that
            # loses power may lose the last transactions, never the database.
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA journal_size_limit={64 << 20}")
        return connection

    # See _reading: what was opened as immutable is asked once.
    is_borrowed = is_reader and not os.access(path.parent, os.W_OK)
    pool = NullPool if is_borrowed else QueuePool
    engine = create_engine("sqlite://", creator=connect, poolclass=pool)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _reading(path: Path) -> sqlite3.Connection:
    """A connection that only reads, also where its user may not write to the folder.

    There SQLite can share a log that exists, but not make one; while nobody writes there is none,
    and the file can be taken as it is (https://sqlite.org/wal.html#read_only_databases).
    """
    connection = _connected(path, "mode=ro")
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        is_alone = not Path(f"{path}-wal").exists()
        if error.sqlite_errorcode & 0xFF in _NO_LOG and is_alone:
            return _connected(path, "mode=ro&immutable=1")
        raise
    except BaseException:
        connection.close()
        raise
    return connection


def _connected(path: Path, parameters: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{parameters}",
        uri=True,
        timeout=_WAIT_S,
        isolation_level=None,  # transactions are begun below
        check_same_thread=False,  # the pool gives it to one thread at a time
    )


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: one that begins as a reader cannot wait for it later.
    reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _raw(connection: Connection) -> sqlite3.Connection:
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)  # noqa: S101 - asked for SQLite only
    return raw


# PostgreSQL


def _postgresql_url(place: str) -> URL:
    try:
        url = make_url(place)
    except (ArgumentError, ValueError):  # its text has the URL
        url = None
    if url is None or "@" in (url.host or ""):
        raise StoreError(_UNREADABLE, hint=f"write {_EXAMPLE}") from None
    if url.drivername not in _POSTGRESQL:
        raise StoreError(f"{url.drivername}:// is no review store", hint=f"a path, or {_EXAMPLE}")
    return url.set(drivername="postgresql+psycopg")


def _shown(url: URL) -> str:
    """The URL without user, password and parameters, any of which may be a secret."""
    host = url.host or "local socket"
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{host}{port}/{url.database or ''}"


def _secrets(url: URL) -> tuple[str, ...]:
    given = [url.password, *(url.query.get(name) for name in ("password", "sslpassword"))]
    return tuple(str(each) for each in given if each)


def _postgresql_engine(url: URL, *, is_reader: bool) -> Engine:
    try:
        engine = create_engine(
            url,
            pool_pre_ping=True,  # a server that was restarted is met again, not reported
            connect_args={
                "connect_timeout": _CONNECT_S,
                "application_name": "egressproxy-review",
                "tcp_user_timeout": _WAIT_S * 1000,
            },
        )
    except (ImportError, NoSuchModuleError) as error:
        raise StoreError(
            _NO_DRIVER,
            hint="pip install egressproxy[postgres]",
        ) from error

    def prepare(raw: Any, _: object) -> None:
        with raw.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{_WAIT_S}s'")
        raw.commit()
        raw.read_only = is_reader

    event.listen(engine, "connect", prepare)
    return engine


def _scalar(name: str, *values: Any) -> Function[Any]:
    made: Function[Any] = getattr(func, name)(*values)
    return made

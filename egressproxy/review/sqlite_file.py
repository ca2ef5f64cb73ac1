"""Files of SQLite as stores: made with their mode, opened to write or only to read.

See https://sqlite.org/wal.html for what readers and a writer may do at the same time.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import create_engine, event
from sqlalchemy.pool import NullPool, QueuePool

from egressproxy.errors import StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

WAIT_S: Final = 10
"""How long a transaction waits for another's lock."""
FILE_MODE: Final = 0o640
_NO_LOG: Final = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
_MAGIC: Final = b"SQLite format 3\0"


def look_at_file(path: Path, *, is_reader: bool) -> None:
    """Make the file with its mode, before SQLite touches it.

    Raises:
        StoreError: it cannot be opened or made, or is no database.
    """
    flags = os.O_RDONLY if is_reader else os.O_RDWR | os.O_CREAT
    if os.path.isdir(path):  # noqa: PTH112 - is_dir() raises where it may not look
        raise StoreError(
            f"{path} is a folder, and no review store",
            hint=f"give a file in it: {path / 'review.db'}",
            code="foreign",
        )
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, FILE_MODE)  # it may be a pipe
    except FileNotFoundError as error:
        raise StoreError(
            f"there is no review store at {path}",
            hint="start the gateway with --review-store, or make one of logs:"
            f" egressproxy review import --store {path} FILE"
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
    with os.fdopen(fd, "rb", buffering=0) as file:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        head = file.read(len(_MAGIC)) if is_file else None
    if head not in (b"", _MAGIC):
        raise StoreError(
            f"{path} is not a review store",
            hint="give a path that does not exist yet",
            code="foreign",
        )


def sqlite_engine(path: Path, *, is_reader: bool) -> Engine:
    """Connections to a file; with the execution option ``reads`` they do not begin as writers."""

    def connect() -> sqlite3.Connection:
        connection = _reading(path) if is_reader else _connected(path, "mode=rw")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA cache_size=-8192")  # KiB, a connection
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
    event.listen(engine, "begin", _begin)
    return engine


def _reading(path: Path) -> sqlite3.Connection:
    """A connection that only reads, also where its user may not write to the folder.

    There SQLite can share a log that exists, but not make one; while nobody writes there is none or
    an empty one, and the file can be taken as it is (https://sqlite.org/wal.html#read_only_databases).
    """
    connection = _connected(path, "mode=ro")
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorcode & 0xFF in _NO_LOG and _is_log_empty(path):
            return _connected(path, "mode=ro&immutable=1")
        raise
    except BaseException:
        connection.close()
        raise
    return connection


def _is_log_empty(path: Path) -> bool:
    try:
        return Path(f"{path}-wal").stat().st_size == 0
    except FileNotFoundError:
        return True


def _connected(path: Path, parameters: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{parameters}",
        uri=True,
        timeout=WAIT_S,
        isolation_level=None,  # transactions are begun below
        check_same_thread=False,  # the pool gives it to one thread at a time
    )


def _begin(connection: Connection) -> None:
    # A writer takes the lock at once: one that begins as a reader cannot wait for it later.
    reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def keep_log(connection: Connection) -> None:
    """Let readers and a writer work at the same time; the mode stays with the file."""
    _raw(connection).execute("PRAGMA journal_mode=WAL")


def give_back(connection: Connection, pages: int) -> int:
    """Give some free pages back to the disk, and tell how many are left."""
    raw = _raw(connection)
    # A page is freed with each step; execute() would take the first one only.
    raw.executescript(f"PRAGMA incremental_vacuum({pages})")
    (left,) = raw.execute("PRAGMA freelist_count").fetchone()
    return int(left)


def _raw(connection: Connection) -> sqlite3.Connection:
    """The driver's connection, where a statement must not be in a transaction."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)  # noqa: S101 - asked for SQLite only
    return raw

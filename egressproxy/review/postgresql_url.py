"""PostgreSQL as a store, reached by a URL, whose secrets no text ever shows."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from egressproxy.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Engine, Table

WAIT_S: Final = 10
"""How long a transaction waits for another's lock."""
_CONNECT_S: Final = 5
_SCHEMES: Final = {"postgresql", "postgres", "postgresql+psycopg"}
_EXAMPLE: Final = "postgresql://USER:PASSWORD@HOST/DATABASE, each part percent-encoded"
_UNREADABLE: Final = "the review store's URL cannot be read"
_NO_DRIVER: Final = "this egressproxy has no driver for PostgreSQL"


def postgresql_url(place: str) -> URL:
    """Read a URL.

    Raises:
        StoreError: it cannot be read, or is of another kind of database.
    """
    try:
        url = make_url(place)
    except (ArgumentError, ValueError):  # its text has the URL
        url = None
    if url is None or "@" in (url.host or ""):
        raise StoreError(_UNREADABLE, hint=f"write {_EXAMPLE}") from None
    if url.drivername not in _SCHEMES:
        raise StoreError(f"{url.drivername}:// is no review store", hint=f"a path, or {_EXAMPLE}")
    return url.set(drivername="postgresql+psycopg")


def shown(url: URL) -> str:
    """The URL without user, password and parameters, any of which may be a secret."""
    host = url.host or "local socket"
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{host}{port}/{url.database or ''}"


def secrets_of(url: URL) -> tuple[str, ...]:
    """What may not appear in any text."""
    given = [url.password, *(url.query.get(name) for name in ("password", "sslpassword"))]
    return tuple(str(each) for each in given if each)


def postgresql_engine(url: URL, *, is_reader: bool) -> Engine:
    """Connections to a database.

    Raises:
        StoreError: the driver is not installed.
    """
    try:
        engine = create_engine(
            url,
            pool_pre_ping=True,  # a server that was restarted is met again, not reported
            connect_args={
                "connect_timeout": _CONNECT_S,
                "application_name": "egressproxy-review",
                "tcp_user_timeout": WAIT_S * 1000,
            },
        )
    except (ImportError, NoSuchModuleError) as error:
        raise StoreError(
            _NO_DRIVER,
            hint="pip install egressproxy[postgres]",
        ) from error

    def prepare(raw: Any, _: object) -> None:
        with raw.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{WAIT_S}s'")
        raw.commit()
        raw.read_only = is_reader

    event.listen(engine, "connect", prepare)
    return engine


def copy_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows by COPY, which takes a fifth of the time of INSERTs; in the same transaction.

    Raises:
        DBAPIError: as a statement of SQLAlchemy would.
    """
    columns = tuple(rows[0])
    names = ", ".join(f'"{name}"' for name in columns)
    statement = f'COPY "{table.name}" ({names}) FROM STDIN'.encode()
    raw: Any = connection.connection.driver_connection  # psycopg.Connection, of an extra
    values = itemgetter(*columns)
    try:
        with raw.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(values(row))
    except connection.dialect.loaded_dbapi.Error as error:
        raise DBAPIError("COPY", None, error) from error

from __future__ import annotations

import sqlite3

import psycopg
import pytest
from psycopg import errors

from egressproxy.review.store_fault import fault_of


def lite(number: int, said: str = "no") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(said)
    error.sqlite_errorcode = number
    return error


CASES: dict[str, tuple[BaseException, str]] = {
    "SQLITE_BUSY": (lite(sqlite3.SQLITE_BUSY), "busy"),
    "SQLITE_BUSY_SNAPSHOT": (lite(sqlite3.SQLITE_BUSY_SNAPSHOT), "busy"),
    "SQLITE_LOCKED": (lite(sqlite3.SQLITE_LOCKED), "busy"),
    "SQLITE_FULL": (lite(sqlite3.SQLITE_FULL), "full"),
    "SQLITE_CORRUPT": (lite(sqlite3.SQLITE_CORRUPT), "damaged"),
    "SQLITE_NOTADB": (lite(sqlite3.SQLITE_NOTADB), "damaged"),
    "SQLITE_READONLY": (lite(sqlite3.SQLITE_READONLY), "permission"),
    "SQLITE_CANTOPEN": (lite(sqlite3.SQLITE_CANTOPEN), "permission"),
    "SQLITE_IOERR": (lite(sqlite3.SQLITE_IOERR), "store"),
    "lock_timeout": (errors.LockNotAvailable("canceling statement"), "busy"),
    "no space": (errors.DiskFull("could not extend file"), "full"),
    "no right": (errors.InsufficientPrivilege("permission denied"), "permission"),
    "no such database": (psycopg.OperationalError('database "x" does not exist'), "missing"),
    "wrong password": (psycopg.OperationalError("password authentication failed"), "permission"),
    "nobody listens": (psycopg.OperationalError("connection refused"), "store"),
}


@pytest.mark.parametrize(("said", "code"), CASES.values(), ids=CASES)
def test_codes(said: BaseException, code: str) -> None:
    fault = fault_of(said, "the place")
    assert fault.code == code
    assert fault.hint or code == "store"
    assert "the place" in fault.message


def test_of_many_lines_the_first_without_secrets() -> None:
    said = psycopg.OperationalError("bad word secret" + "x" * 1000 + "\nand more")
    fault = fault_of(said, "place", ("secret",))
    assert "bad word ***xxx" in fault.message
    assert "more" not in fault.message
    assert len(fault.message) < 250

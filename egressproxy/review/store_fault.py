"""What a database's error means to the operator: code, words and hint, and no secret in it."""

from __future__ import annotations

from typing import Final

from egressproxy.errors import StoreError

_MAX_TEXT: Final = 200

_BUSY: Final = ("busy", "another process holds it: is an import or a vacuum running?")
_FULL: Final = ("full", "free some space on the disk, or lower review_max_bytes")
_DAMAGED: Final = ("damaged", "move it away; a new one is made, and logs can be imported into it")
_PERMISSION: Final = ("permission", "the file and its folder must belong to the service's user")
_LOGIN: Final = ("permission", "check user, password and rights of the review store's URL")
_MISSING: Final = ("missing", "create the database first: createdb egressproxy")
_OTHER: Final = ("store", "")

# https://sqlite.org/rescode.html, the low octet
_SQLITE: Final = {
    3: _PERMISSION,
    5: _BUSY,
    6: _BUSY,
    8: _PERMISSION,
    11: _DAMAGED,
    13: _FULL,
    14: _PERMISSION,
    26: _DAMAGED,
}
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL: Final = {
    "28000": _LOGIN,
    "28P01": _LOGIN,
    "3D000": _MISSING,
    "42501": _LOGIN,
    "53100": _FULL,
    "55P03": _BUSY,
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
}


# What libpq says where a connection fails, which has no SQLSTATE (psycopg#1007).
_CONNECTING: Final = (
    ("does not exist", _MISSING),
    ("authentication failed", _LOGIN),
    ("no password supplied", _LOGIN),
    ("pg_hba.conf", _LOGIN),
)


def fault_of(said: BaseException, place: str, secrets: tuple[str, ...] = ()) -> StoreError:
    """The error to raise; of what the driver said only the first line is shown, no secret."""
    number = getattr(said, "sqlite_errorcode", None)
    if number is not None:
        code, hint = _SQLITE.get(number & 0xFF, _OTHER)
    else:
        code, hint = _postgresql_fault(getattr(said, "sqlstate", None), str(said))
    line = next(iter(str(said).splitlines()), "")[:_MAX_TEXT]
    for secret in secrets:
        line = line.replace(secret, "***")
    return StoreError(f"review store {place}: {line}", hint=hint, code=code)


def _postgresql_fault(sqlstate: str | None, said: str) -> tuple[str, str]:
    if sqlstate is not None:
        return _POSTGRESQL.get(sqlstate, _OTHER)
    return next((fault for words, fault in _CONNECTING if words in said), _OTHER)

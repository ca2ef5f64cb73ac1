"""What a check says: how it is, what was seen, why it matters, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    """It works now; it will not under load, or not as meant."""
    FAIL = "fail"
    """The gateway cannot do its work, or does not protect."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result; ``why`` and ``fix``, a command or what to write, are empty for ``ok``."""

    check: str
    level: Level
    seen: str
    why: str = ""
    fix: str = ""


def ok(check: str, seen: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, seen)


def warn(check: str, seen: str, why: str, fix: str) -> Finding:
    """It works now."""
    return Finding(check, Level.WARN, seen, why, fix)


def fail(check: str, seen: str, why: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(check, Level.FAIL, seen, why, fix)

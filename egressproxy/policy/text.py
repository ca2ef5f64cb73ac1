"""Bytes of a policy's file to text: UTF-8 only, bounded, no NUL."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egressproxy.policy.problems import Report


def decode(data: bytes, report: Report, *, limit: int) -> str | None:
    """UTF-8 text without a byte order mark, or ``None`` and a problem."""
    if len(data) > limit:
        report.add(
            None,
            f"larger than {limit // 1_048_576} MB",
            "mass lists of names go into a file: list:names.txt",
        )
        return None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        report.at(1, 1, "UTF-16 text", "save the file as UTF-8")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = place(data[: error.start].decode("utf-8", "replace"))
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
        report.at(line, column, what, "save the file as UTF-8")
        return None
    if "\0" in text:
        line, column = place(text, text.index("\0"))
        report.at(line, column, "a NUL character", "this is not a text file")
        return None
    return text


def place(text: str, position: int | None = None) -> tuple[int, int]:
    """Line and column, from 1, of a position in a text; of its end without one."""
    before = text if position is None else text[:position]
    return before.count("\n") + 1, len(before) - before.rfind("\n")

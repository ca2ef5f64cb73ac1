"""Suggestions as an include file of a policy; files that a person wrote are never touched.

The file begins with a mark and the digest of what follows, so that it is known as ours for as long
as nobody edits it. Ours and part of the policy already, it keeps what it has and gets more; ours
and not included, it is written anew. Anything else is left alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
import textwrap
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from egressproxy.errors import EgressproxyError
from egressproxy.review.drafts import rule_name
from egressproxy.review.formats import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from egressproxy.policy.rules import Policy
    from egressproxy.review.suggestion import Suggestion

MARK: Final = "# Written by egressproxy suggest. Once edited it is yours, and left alone."
MAX_BYTES: Final = 10 << 20
"""Of a file that may be ours; no document of a policy is larger."""

_DIGEST: Final = "# sha256 of what follows: "
_SECTIONS: Final = ("requirements", "rules")
_RULE_NAME: Final = re.compile(r'  - name: "?(.*?)"?')
_WIDTH: Final = 96
_MODE: Final = 0o644


class NotOursError(EgressproxyError):
    """A file that ``suggest`` did not write, or that somebody has edited since."""

    code = "not_ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written: ``added`` items beside ``kept`` ones.

    ``is_included`` is whether the policy has the file already. Otherwise ``include`` is how it is
    named there, relative to the root file; empty where it lies outside the root file's folder.
    """

    path: Path
    added: int
    kept: int
    is_included: bool
    include: str


def write_include(
    path: Path, suggestions: Iterable[Suggestion], policy: Policy, now: float
) -> Written:
    """Write what is offered into a file, whole or not at all; nothing offered writes nothing.

    Args:
        path: in the folder of the policy's root file, or below it.
        suggestions: those that are withheld are left out.
        policy: the one that they were made for; tells whether the file is part of it.
        now: POSIX seconds, for the comment.

    Raises:
        NotOursError: the file is somebody else's.
        OSError: it cannot be read or written.
    """
    offered = [each for each in suggestions if each.is_offered]
    is_included = path.resolve() in {file.resolve() for file in policy.files}
    ours = _read_ours(path)
    kept = ours if is_included else _Items()
    if offered:
        _replace(path, _text(kept, offered, now))
    return Written(
        path=path,
        added=len(offered),
        kept=kept.count,
        is_included=is_included,
        include=_relative(path, policy),
    )


def include_text(suggestions: Iterable[Suggestion], now: float) -> str:
    """What is offered as an include file, without the mark of one that was written.

    ``now`` is POSIX seconds, for the comment. Empty where nothing is offered.
    """
    offered = [each for each in suggestions if each.is_offered]
    return _body(_Items(), offered, now) if offered else ""


@dataclass(slots=True)
class _Items:
    """The lines of each section, as they stand in a file of ours."""

    lines: dict[str, list[str]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many items they are."""
        return sum(line.startswith("  - ") for lines in self.lines.values() for line in lines)

    def rule_names(self) -> set[str]:
        """The names of its rules: no new one may have them."""
        found = map(_RULE_NAME.fullmatch, self.lines.get("rules", ()))
        return {match[1] for match in found if match}


def _read_ours(path: Path) -> _Items:
    """What a file of ours has; of none, nothing."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return _Items()
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
        raise NotOursError(f"{path} is no file of suggestions", hint="choose another file")
    mark, _, rest = path.read_bytes().partition(b"\n")
    digest, _, body = rest.partition(b"\n")
    if mark.decode(errors="replace") != MARK:
        raise NotOursError(f"{path} was not written by suggest", hint="choose another file")
    if digest.decode(errors="replace") != _DIGEST + hashlib.sha256(body).hexdigest():
        raise NotOursError(
            f"{path} was edited since suggest wrote it", hint="it is yours now: choose another file"
        )
    items = _Items()
    section = ""
    for line in body.decode().splitlines():
        if line.endswith(":") and line[:-1] in _SECTIONS:
            section = line[:-1]
        elif section:
            items.lines.setdefault(section, []).append(line)
    return items


def _text(kept: _Items, offered: Sequence[Suggestion], now: float) -> bytes:
    body = _body(kept, offered, now).encode()
    return f"{MARK}\n{_DIGEST}{hashlib.sha256(body).hexdigest()}\n".encode() + body


def _body(kept: _Items, offered: Sequence[Suggestion], now: float) -> str:
    taken = kept.rule_names()
    lines = ["version: 1"]
    for section in _SECTIONS:
        old = kept.lines.get(section, [])
        new = [each for each in offered if each.section == section]
        if not (old or new):
            continue
        lines += [f"{section}:", *old]
        if new:
            lines.append(f"  # Suggested {_day_and_time(now)} UTC.")
        for each in new:
            lines += (f"  {line}" for line in _comment(each))
            lines += (f"  {line}" for line in _named(each, taken))
    return "\n".join(lines) + "\n"


def _named(suggestion: Suggestion, taken: set[str]) -> tuple[str, ...]:
    """The entry of a suggestion, under a name that no rule of the file has."""
    first, *rest = suggestion.entry
    match = _RULE_NAME.fullmatch(f"  {first}")
    if match is None:
        return suggestion.entry
    name = match[1] if match[1] not in taken else rule_name(suggestion.title, taken)
    taken.add(name)
    return (first if name == match[1] else f'- name: "{name}"', *rest)


def _comment(suggestion: Suggestion) -> Iterator[str]:
    evidence = suggestion.evidence
    flows, clients = _count(evidence.flows, "flow"), _count(evidence.source_count, "client")
    first, last = _day_and_time(evidence.first_at), _day_and_time(evidence.last_at)
    span = first if first == last else f"{first} to {last}"
    for text in (f"{flows} of {clients}, {span}: {suggestion.why}", f"risk: {suggestion.risk}"):
        for line in textwrap.wrap(printable(text), _WIDTH):
            yield f"# {line}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _day_and_time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")


def _relative(path: Path, policy: Policy) -> str:
    """The path as the root file's ``include:`` names it."""
    if not policy.files:
        return path.name
    folder = policy.files[0].resolve().parent
    text = Path(os.path.relpath(path.resolve(), folder)).as_posix()
    return "" if text.startswith("../") else text


def _replace(path: Path, content: bytes) -> None:
    """Put a file in place of another, whole, and on the disk."""
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else _MODE
    number, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(number, mode)
            os.fsync(number)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

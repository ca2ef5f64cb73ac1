"""The exception tree: broken input or a broken world (a deny is a value, ``policy.verdict``).

::

    EgressproxyError
    ├── InvalidNameError     a text that is no host name       (code: invalid_name | ip_literal)
    ├── PatternError         a pattern outside the three forms
    ├── PortError            a port item that cannot be read
    ├── AddressError         a text that is no address range or source group
    ├── WireError            bytes that can never become a fact (code: a ``wire.fault.Fault``)
    │   └── HttpError        an HTTP message that is refused (status: what to answer)
    ├── CatalogError         an unknown requirement, cloud or parameter
    ├── PolicyError          every problem of a policy at once
    ├── ServiceError         a process, socket or capability that is not to be had
    ├── KernelError          the kernel, or nft for it, refused or said what cannot be read
    └── StoreError           the review's store cannot be opened, read or written

Every error has a stable ``code`` and may carry a ``hint``: what to write or do instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class EgressproxyError(Exception):
    """Root of the tree; ``str(error)`` is the message with its hint."""

    code = "error"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class InvalidNameError(EgressproxyError):
    """A text that is not a host name; ``code`` is ``ip_literal`` where it is an address."""

    code = "invalid_name"


class PatternError(EgressproxyError):
    """A pattern outside the three forms of ``patterns``."""

    code = "invalid_pattern"


class PortError(EgressproxyError):
    """A port item that cannot be read."""

    code = "invalid_port"


class AddressError(EgressproxyError):
    """A text that is no address range, no source group, or a range that may not be listed."""

    code = "invalid_address"


class WireError(EgressproxyError):
    """Bytes that can never become the expected fact, however many more arrive."""

    code = "malformed"


@dataclass(frozen=True, slots=True)
class ParameterProblem:
    """One thing wrong with what a requirement was given.

    ``parameter`` is the key to point at: a parameter's name, ``via``, ``cloud``, or empty where it
    is the requirement itself.
    """

    parameter: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.what} (hint: {self.hint})" if self.hint else self.what


class HttpError(WireError):
    """An HTTP message that is refused; ``status`` is the status code to answer with.

    ``host`` is ``name:port`` of whom it was for, where that much is sure.
    """

    def __init__(
        self, message: str, *, hint: str = "", code: str, status: int, host: str = ""
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.status = status
        self.host = host


class CatalogError(EgressproxyError):
    """A requirement, cloud or parameter that the catalog does not have.

    ``problems`` holds each on its own where one call found several.
    """

    code = "catalog"

    def __init__(
        self, message: str, *, hint: str = "", problems: tuple[ParameterProblem, ...] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems or (ParameterProblem("", message, hint),)

    @classmethod
    def of(cls, subject: str, problems: tuple[ParameterProblem, ...]) -> CatalogError:
        """One error that says every problem of ``subject``; ``problems`` has at least one."""
        if len(problems) == 1:
            only = problems[0]
            return cls(f"{subject}: {only.what}", hint=only.hint, problems=problems)
        lines = "".join(f"\n  - {problem}" for problem in problems)
        return cls(f"{subject}:{lines}", problems=problems)


class KernelError(EgressproxyError):
    """The kernel, or nft for it, refused what it was asked, or sent what cannot be read.

    ``code`` is ``kernel``, or what can be told apart: ``missing_program``, ``version``,
    ``permission``, ``module``, ``script`` (nft refuses the text), ``timeout``, ``busy``.
    """

    code = "kernel"


class ServiceError(EgressproxyError):
    """A process, socket or capability that is not to be had."""

    code = "service"


class StoreError(EgressproxyError):
    """The store of records cannot be opened, read or written.

    ``code`` is ``store``, or what can be told apart: ``missing``, ``foreign`` (not a store of
    ours), ``newer`` (of a later version), ``busy``, ``full``, ``damaged``, ``permission``.
    """

    code = "store"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in a policy document; ``line`` and ``column`` count from 1, 0 is unknown."""

    file: str
    line: int
    column: int
    what: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.what}" + (f", hint: {self.hint}" if self.hint else "")


class PolicyError(EgressproxyError):
    """All problems of a policy, in document order; the policy before it stays in force.

    ``files`` are those whose change may be the cure, also where they do not exist yet.
    """

    code = "policy"

    def __init__(self, problems: tuple[Problem, ...], files: tuple[Path, ...] = ()) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
        self.files = files


MAX_WORD: Final = 80
"""Characters of a word for which near ones are looked for."""
MAX_COMPARED: Final = 200
"""Words that a word is compared with: some 20 us each, and a file can be wrong in many places."""


def nearest(word: str, known: Iterable[str], *, count: int = 2) -> str:
    """A hint ``did you mean …?`` from the known words that are near, or an empty text."""
    near = near_words(word, known, count=count)
    return f"did you mean {' or '.join(near)}?" if near else ""


def near_words(word: str, known: Iterable[str], *, count: int = 2) -> list[str]:
    """The known words that are near, best first; of very many only those that begin alike."""
    if len(word) > MAX_WORD:
        return []
    compared = list(known)
    if len(compared) > MAX_COMPARED:
        compared = [one for one in compared if one[:2] == word[:2]][:MAX_COMPARED]
    return get_close_matches(word, compared, n=count, cutoff=0.6)

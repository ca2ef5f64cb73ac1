"""The exception tree: broken input or a broken world (a deny is a value, ``policy.verdict``).

::

    EgressproxyError
    ├── InvalidNameError     a text that is no host name       (code: invalid_name | ip_literal)
    ├── PatternError         a pattern outside the three forms
    ├── PortError            a port item that cannot be read
    ├── WireError            bytes that can never become a fact (code: a ``wire.fault.Fault``)
    ├── CatalogError         an unknown requirement, cloud or parameter
    ├── PolicyError          every problem of a policy at once
    ├── ResolveError         a name that has no address now    (code: resolve_failed)
    └── ServiceError         a process, socket or capability that is not to be had

Every error has a stable ``code`` and may carry a ``hint``: what to write or do instead.
"""

from __future__ import annotations

from dataclasses import dataclass


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


class WireError(EgressproxyError):
    """Bytes that can never become the expected fact, however many more arrive."""

    code = "malformed"


class CatalogError(EgressproxyError):
    """A requirement, cloud or parameter that the catalog does not have."""

    code = "catalog"


class ResolveError(EgressproxyError):
    """A name for which no server gave an address."""

    code = "resolve_failed"


class ServiceError(EgressproxyError):
    """A process, socket or capability that is not to be had."""

    code = "service"


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
    """All problems of a policy, in document order; the policy before it stays in force."""

    code = "policy"

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems

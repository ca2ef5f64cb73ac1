"""Refusals as bytes: signatures first."""

from __future__ import annotations

from typing import Final

CONNECT_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"


def refusal(  # noqa: PLR0913
    status: int,
    reason: str,
    *,
    host: str = "",
    rule: str = "",
    detail: str = "",
    accept: bytes = b"",
    head_only: bool = False,
) -> bytes:
    """A whole response that says why; the connection closes after it.

    Args:
        status: 400, 403, 408, 431, 501, 502, 504, 505.
        reason: a ``policy.verdict.Reason`` value.
        host: ``name:port``, whom the request was for; escaped and capped here.
        rule: the id of the rule that decided, or nothing.
        detail: what exactly is wrong with the bytes (``str(WireError)``).
        accept: the request's Accept field; JSON where it asks for it.
        head_only: the request was HEAD.
    """
    raise NotImplementedError
